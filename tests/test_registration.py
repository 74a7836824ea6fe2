"""Our classes are registered in every order of imports, and plain Whisper checkpoints load exactly as before."""

import json

import pytest

from .hub_folders import python_answer, save_student
from .tiny_models import tiny_whisper

ORDERS = {
    "package first": "import fastwhisper; import transformers",
    "pipeline after it": "import fastwhisper; from transformers import pipeline",
    "module of an AutoClass after it": "import fastwhisper; import transformers.models.auto.modeling_auto",
    # These two import AutoClasses while they are half imported themselves.
    "layers after it": "import fastwhisper; from transformers.modeling_layers import GradientCheckpointingLayer",
    "processing after it": "import fastwhisper; from transformers.processing_utils import ProcessorMixin",
    "peft after it": "import fastwhisper; from peft import LoraConfig",
    "auto classes first": "from transformers import AutoModelForSpeechSeq2Seq; import fastwhisper",
    "Whisper first": "from transformers import WhisperForConditionalGeneration; import fastwhisper",
    "our configuration first": "from fastwhisper.configuration.configuration_fastwhisper import FastWhisperConfig",
    "our model first": "from fastwhisper.modeling.modeling_fastslm import FastSLMModel",
    "explicitly, twice": "from fastwhisper import register_auto_classes as register; register(); register()",
    "threads": """
import threading
import transformers
names = ["fastwhisper.FastSLMModel", "fastwhisper.FastWhisperConfig", "fastwhisper.ASKDTrainer"]
names += ["transformers.AutoModel", "transformers.pipeline", "transformers.WhisperModel"]
start, failed = threading.Barrier(len(names)), []
def take(module, name):
    start.wait()
    try:
        exec(f"from {module} import {name}", {})
    except Exception as error:
        failed.append(error)
threads = [threading.Thread(target=take, args=name.split(".")) for name in names]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
assert not failed, failed
""",
}
# Each order runs in a child of one interpreter that has much, and nothing of transformers: a start costs seconds.
IMPORTS = """
import json, multiprocessing, sys
import accelerate, datasets, sympy, tokenizers, torch, torch._dynamo, torch.distributed.fsdp, torch.distributed.tensor

assert "transformers" not in sys.modules

def run(statement, answers):
    exec(statement, {})
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM
    from transformers import AutoModelForSpeechSeq2Seq
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
    import fastwhisper
    models = {
        (auto.__name__, config.__name__): auto._model_mapping[config]
        for auto in (AutoModel, AutoModelForCausalLM, AutoModelForMultimodalLM, AutoModelForSpeechSeq2Seq)
        for config in (fastwhisper.FastWhisperConfig, fastwhisper.FastSLMConfig)
        if config in auto._model_mapping
    }
    assert all(model is getattr(fastwhisper, model.__name__) for model in models.values())
    assert type(AutoConfig.for_model("fastslm")) is fastwhisper.FastSLMConfig
    assert PROCESSOR_MAPPING[fastwhisper.FastSLMConfig] is fastwhisper.FastSLMProcessor
    answers.put(sorted([*names, model.__name__] for names, model in models.items()))

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
REGISTERED = [
    ["AutoModel", "FastSLMConfig", "FastSLMModel"],
    ["AutoModel", "FastWhisperConfig", "FastWhisperForConditionalGeneration"],
    ["AutoModelForCausalLM", "FastSLMConfig", "FastSLMForCausalLM"],
    ["AutoModelForMultimodalLM", "FastSLMConfig", "FastSLMForCausalLM"],
    ["AutoModelForSpeechSeq2Seq", "FastWhisperConfig", "FastWhisperForConditionalGeneration"],
]
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
    assert orders[order] == REGISTERED


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
        "greedy_whisper.py",
        "modeling_fastwhisper.py",
        "one_token_whisper.py",
        "saved_folder.py",
        "true_length_whisper.py",
        "whisper_generation_config.py",
    ]
