"""Our classes are registered in every order of imports, and plain Whisper checkpoints load exactly as before."""

import json

import pytest

from .hub_folders import python_answer, save_student
from .tiny_models import tiny_whisper

ORDERS = {
    "package first": "import fastwhisper; import transformers",
    "auto classes first": "from transformers import AutoModelForSpeechSeq2Seq; import fastwhisper",
    "Whisper first": "from transformers import WhisperForConditionalGeneration; import fastwhisper",
    "our configuration first": "from fastwhisper.configuration.configuration_fastwhisper import FastWhisperConfig",
}
# Each order runs in a child of one interpreter that has much, and nothing of transformers: a start costs seconds.
IMPORTS = """
import json, multiprocessing, sys
import accelerate, sympy, torch

assert "transformers" not in sys.modules

def run(statement, answers):
    exec(statement)
    from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor
    from fastwhisper import FastWhisperConfig
    registered = [auto._model_mapping[FastWhisperConfig].__module__ for auto in (AutoModel, AutoModelForSpeechSeq2Seq)]
    watchers = [finder for finder in sys.meta_path if type(finder).__module__.startswith("fastwhisper")]
    answers.put([registered, type(AutoConfig.for_model("fastslm")).__name__, len(watchers)])

context = multiprocessing.get_context("fork")
answers = {}
for name, statement in json.loads(sys.argv[1]).items():
    queue = context.Queue()
    process = context.Process(target=run, args=(statement, queue))
    process.start()
    process.join(120)
    answers[name] = queue.get(timeout=1) if process.exitcode == 0 else f"exit code {process.exitcode}"
print(json.dumps(answers))
"""
LOAD = """
import json, os, sys
import fastwhisper
from transformers import AutoConfig, AutoModel, AutoModelForSpeechSeq2Seq, AutoProcessor, WhisperConfig

whisper, student = sys.argv[1:]

def kind(value):
    return f"{type(value).__module__.split('.')[0]} {type(value).__name__}"

trusted = AutoModelForSpeechSeq2Seq.from_pretrained(student, trust_remote_code=True)
trusted.save_pretrained("again")
config = AutoConfig.from_pretrained(student, trust_remote_code=True)
mixed = fastwhisper.FastWhisperForConditionalGeneration.from_pretrained(student, config=config)
mixed.save_pretrained("mixed")
print(json.dumps({
    "config": kind(AutoConfig.from_pretrained(whisper)),
    "AutoModel": kind(AutoModel.from_pretrained(whisper)),
    "speech": kind(AutoModelForSpeechSeq2Seq.from_pretrained(whisper)),
    "student": kind(AutoModelForSpeechSeq2Seq.from_pretrained(student)),
    "trusted": kind(trusted),
    "trusted, saved again": kind(AutoModel.from_pretrained("again", trust_remote_code=True)),
    "mixed": [kind(mixed), kind(mixed.config), sorted(name for name in os.listdir("mixed") if name.endswith(".py"))],
    "from our config": kind(AutoModelForSpeechSeq2Seq.from_config(fastwhisper.FastWhisperConfig(
        vocab_size=99, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, pad_token_id=0, bos_token_id=0, eos_token_id=0, decoder_start_token_id=0))),
}))
"""


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    return python_answer(IMPORTS, tmp_path_factory.mktemp("orders"), json.dumps(ORDERS))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory, demo_tokenizer):
    folder = tmp_path_factory.mktemp("kinds")
    tiny_whisper(demo_tokenizer).save_pretrained(folder / "whisper")
    student = save_student(folder / "student", demo_tokenizer)
    return python_answer(LOAD, folder, folder / "whisper", student)


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_imports_registers(orders, order):
    registered, other_family, watchers = orders[order]

    assert registered == ["fastwhisper.modeling.modeling_fastwhisper"] * 2
    assert other_family == "FastSLMConfig"
    # Nothing waits any more, so that nothing watches the imports of the rest of the program.
    assert watchers == 0


def test_plain_checkpoints_load_as_before(kinds):
    assert kinds["config"] == "transformers WhisperConfig"
    assert kinds["AutoModel"] == "transformers WhisperModel"
    assert kinds["speech"] == "transformers WhisperForConditionalGeneration"
    assert kinds["student"] == "transformers WhisperForConditionalGeneration"


def test_trusted_code_also_loads_where_the_package_is(kinds):
    assert (
        kinds["trusted"] == kinds["trusted, saved again"] == "transformers_modules FastWhisperForConditionalGeneration"
    )
    assert kinds["from our config"] == "fastwhisper FastWhisperForConditionalGeneration"


def test_our_model_with_a_config_from_remote_code_is_saved_with_all_its_code(kinds):
    model, config, code = kinds["mixed"]

    assert model.startswith("fastwhisper ") and config.startswith("transformers_modules ")
    assert code == [
        "configuration_fastwhisper.py",
        "modeling_fastwhisper.py",
        "saved_folder.py",
        "whisper_generation_config.py",
    ]
