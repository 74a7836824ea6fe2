"""With `--trust_remote_code` the code of a folder runs, and only then; this package's own classes need no trust."""

import json
import logging
import shutil

import pytest
import torch
from safetensors.torch import load_file

import fastwhisper
from fastwhisper.cli.main import main
from fastwhisper.errors import InputError

from ..fake_hub import running_hub
from ..fastslm_parts import tiny_encoder, tiny_language_model, tiny_processor
from ..hub_folders import python_answer, save_student
from ..recordings import save_checkpoint, write_noise
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper

RAN = "\nimport pathlib\npathlib.Path({proof!r}).open('a').write(__name__.rpartition('.')[2] + ' ')\n"
WHISPER_CODE = {
    "configuration_own": "from transformers import WhisperConfig\nclass OwnConfig(WhisperConfig): pass",
    "modeling_own": "from transformers import WhisperForConditionalGeneration as Whisper\n"
    "from .configuration_own import OwnConfig\n"
    "class OwnModel(Whisper):\n    config_class = OwnConfig\n    config: OwnConfig",
    "processing_own": "from transformers import WhisperProcessor\nclass OwnProcessor(WhisperProcessor): pass",
}
# A language model that is no other: its hidden states are doubled before the head.
LANGUAGE_MODEL_CODE = {
    "configuration_own": 'from transformers import Qwen3Config\nclass OwnConfig(Qwen3Config):\n    model_type = "own"',
    "modeling_own": """from transformers import Qwen3ForCausalLM, Qwen3Model
from .configuration_own import OwnConfig
class OwnModel(Qwen3Model):
    config_class = OwnConfig
    config: OwnConfig
    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        outputs = super().forward(input_ids, attention_mask, position_ids, past_key_values, **kwargs)
        outputs.last_hidden_state = 2 * outputs.last_hidden_state
        return outputs
class OwnForCausalLM(Qwen3ForCausalLM):
    config_class = OwnConfig
    config: OwnConfig
    def __init__(self, config):
        super().__init__(config)
        self.model = OwnModel(config)
        self.post_init()
""",
}


def add_code(folder, code, proof, **auto_maps):
    for name, source in code.items():
        (folder / f"{name}.py").write_text(source + RAN.format(proof=str(proof)))
    for file, (settings, auto_map) in auto_maps.items():
        path = folder / f"{file}.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **settings, "auto_map": auto_map}))
    return folder


def own_whisper(folder, proof):
    return add_code(
        folder,
        WHISPER_CODE,
        proof,
        config=(
            {},
            {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForSpeechSeq2Seq": "modeling_own.OwnModel"},
        ),
        processor_config=(
            {"processor_class": "OwnProcessor"},
            {"AutoProcessor": "processing_own.OwnProcessor"},
        ),
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory, demo_tokenizer):
    place = tmp_path_factory.mktemp("trusted")
    save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, place / "whisper")
    save_student(place / "student", demo_tokenizer)
    processor = tiny_processor()
    tiny_encoder().save_pretrained(place / "encoder")
    processor.feature_extractor.save_pretrained(place / "encoder")
    tiny_language_model(vocab_size=len(processor.tokenizer) - 2).save_pretrained(place / "language_model")
    processor.tokenizer.save_pretrained(place / "language_model")
    write_noise(place / "a.wav", 1.0)
    return place


@pytest.fixture
def proof(tmp_path):
    return tmp_path / "proof"


@pytest.fixture
def whisper(whole, tmp_path, proof):
    """A Whisper with configuration, model and processor of its own."""
    return own_whisper(shutil.copytree(whole / "whisper", tmp_path / "whisper"), proof)


@pytest.fixture
def language_model(whole, tmp_path, proof):
    """A language model that transformers does not know."""
    folder = shutil.copytree(whole / "language_model", tmp_path / "language_model")
    auto_map = {"AutoConfig": "configuration_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.OwnForCausalLM"}
    return add_code(folder, LANGUAGE_MODEL_CODE, proof, config=({"model_type": "own"}, auto_map))


@pytest.fixture(autouse=True)
def forget_classes():
    """Take back what the code of a folder has registered."""
    from transformers import CONFIG_MAPPING, MODEL_MAPPING

    kept = dict(CONFIG_MAPPING._extra_content), dict(MODEL_MAPPING._extra_content)
    yield
    CONFIG_MAPPING._extra_content, MODEL_MAPPING._extra_content = kept


def test_a_whisper_with_code_of_its_own_is_loaded_with_it_when_trusted(whisper, whole, proof, caplog, capsys):
    with caplog.at_level(logging.WARNING, "fastwhisper"):
        model, processor = fastwhisper.load_checkpoint(whisper)
    assert not proof.exists() and type(model).__module__.startswith("transformers.models.")
    assert [m for m in caplog.messages if "own.OwnModel" in m and "--trust_remote_code" in m] == caplog.messages
    caplog.clear()
    own, own_processor = fastwhisper.load_checkpoint(whisper, trust_remote_code=True)
    assert type(own).__name__ == "OwnModel" and type(own_processor).__name__ == "OwnProcessor"
    assert set(proof.read_text().split()) == {"configuration_own", "modeling_own", "processing_own"}
    assert caplog.messages == []
    for name, weight in own.state_dict().items():
        assert torch.equal(weight, model.state_dict()[name]), name


def words_of_each_verb(whisper, whole, out):
    yield "transcribe", whole / "a.wav", "--model", whisper
    yield "init", "--teacher", whisper, "--decoder_layers", 1, "--output", out / "student"
    yield "label", "--model", whisper, "--dataset", out / "speech", "--output", out / "labels", "--language", "en"
    yield (
        "evaluate",
        "--model",
        whole / "whisper",
        "--against",
        whisper,
        "--dataset",
        out / "speech",
        "--output",
        (out / "report.json"),
    )
    yield (
        "distill",
        "--teacher",
        whisper,
        "--dataset",
        out / "speech",
        "--output_dir",
        out / "run",
        "--max_steps",
        (1),
        "--decoder_layers",
        1,
        "--language",
        "en",
        "--use_cpu",
    )


@pytest.mark.parametrize("verb", ["transcribe", "init", "label", "evaluate", "distill"])
def test_every_verb_runs_code_with_the_flag_alone(verb, whisper, whole, tmp_path, proof, capsys):
    write_speech_folder(tmp_path / "speech", [0.5, 0.7], ["yes please", "good night"])
    (words,) = (words for words in words_of_each_verb(whisper, whole, tmp_path) if words[0] == verb)
    assert main([*map(str, words)]) == 0, capsys.readouterr().err
    assert not proof.exists()
    for made in ("student", "labels", "run"):
        shutil.rmtree(tmp_path / made, ignore_errors=True)
    assert main([*map(str, words), "--trust_remote_code"]) == 0, capsys.readouterr().err
    assert "modeling_own" in proof.read_text()


def test_the_cache_of_label_knows_its_teacher_by_the_code_that_is_trusted(whisper, tmp_path, proof, capsys):
    config = whisper / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "own"}))
    code = whisper / "configuration_own.py"
    code.write_text(code.read_text().replace("pass", 'model_type = "own"'))
    write_speech_folder(tmp_path / "speech", [0.5, 0.7], ["yes please", "good night"])
    words = ["label", "--model", whisper, "--dataset", tmp_path / "speech", "--output", tmp_path / "labels"]
    words = [*map(str, words), "--language", "en", "--teacher_cache", str(tmp_path / "cache")]
    assert main(words) == 2 and "--trust_remote_code" in capsys.readouterr().err
    assert not proof.exists() and not (tmp_path / "labels").exists()
    assert main([*words, "--trust_remote_code"]) == 0
    assert "2 rows computed" in capsys.readouterr().out


def test_a_fastslm_keeps_the_code_of_its_language_model(language_model, whole, tmp_path, proof, capsys):
    build = ["slm", "init", "--encoder", whole / "encoder", "--language_model", language_model, "--num_queries", 4]
    build = [*map(str, build), "--output", str(tmp_path / "slm")]
    assert main(build) == 2 and "--trust_remote_code" in capsys.readouterr().err
    assert not proof.exists() and not (tmp_path / "slm").exists()
    assert main([*build, "--trust_remote_code"]) == 0, capsys.readouterr().err
    assert "OwnModel" in (tmp_path / "slm" / "modeling_own.py").read_text()


# In interpreters of their own: nothing is registered there.
USE = """
import json, sys
import torch
from fastwhisper.cli.main import main
import fastwhisper

torch.set_num_threads(1)
folder, audio, *flags = sys.argv[1:]
codes = {verb: main([*verb.split(), *rest, *flags]) for verb, rest in {
    "slm transcribe": [audio, "--model", folder, "--max_new_tokens", "2"],
    "slm ask": [audio, "--model", folder, "--max_new_tokens", "2"],
    "card": [folder],
}.items()}
logits = None
if flags:
    model, _ = fastwhisper.load_fastslm(folder, "cpu", trust_remote_code=True)
    logits = model(torch.arange(6)[None]).logits[0, -1].tolist()
print(json.dumps([codes, logits]))
"""


def test_a_fastslm_with_a_language_model_of_its_own_is_used_with_the_flag_alone(
    language_model, whole, tmp_path, proof, capsys
):
    build = ["slm", "init", "--encoder", whole / "encoder", "--language_model", language_model, "--num_queries", 4]
    assert main([*map(str, build), "--output", str(tmp_path / "slm"), "--trust_remote_code"]) == 0
    proof.unlink()
    codes, _ = python_answer(USE, tmp_path, tmp_path / "slm", whole / "a.wav")
    assert set(codes.values()) == {2} and not proof.exists()
    codes, logits = python_answer(USE, tmp_path, tmp_path / "slm", whole / "a.wav", "--trust_remote_code")
    assert set(codes.values()) == {0} and "modeling_own" in proof.read_text()
    # The same weights in the class that it derives from, whose hidden states are half of its own.
    plain = tiny_language_model(vocab_size=len(tiny_processor().tokenizer))
    saved = load_file(tmp_path / "slm" / "model.safetensors")
    prefix = "model.language_model."
    plain.model.load_state_dict({k.removeprefix(prefix): v for k, v in saved.items() if k.startswith(prefix)})
    hidden = 2 * plain.model(torch.arange(6)[None]).last_hidden_state[0, -1]
    torch.testing.assert_close(torch.tensor(logits), saved["lm_head.weight"] @ hidden, rtol=1e-4, atol=1e-5)


def test_code_under_a_name_of_transformers_cannot_be_part_of_a_fastslm(language_model, whole, tmp_path, capsys):
    code = language_model / "configuration_own.py"
    code.write_text(code.read_text().replace('"own"', '"qwen3"'))
    build = ["slm", "init", "--encoder", whole / "encoder", "--language_model", language_model]
    assert main([*map(str, build), "--output", str(tmp_path / "slm"), "--trust_remote_code"]) == 2
    assert "model_type 'qwen3'" in capsys.readouterr().err and not (tmp_path / "slm").exists()


def test_a_class_that_is_no_whisper_is_refused(whisper):
    code = whisper / "processing_own.py"
    code.write_text(code.read_text().replace("WhisperProcessor", "Wav2Vec2Processor"))
    with pytest.raises(InputError, match="its own class OwnProcessor is no WhisperProcessor"):
        fastwhisper.load_checkpoint(whisper, trust_remote_code=True)


def test_our_own_code_in_a_folder_is_never_run(whole, tmp_path, proof):
    folder = shutil.copytree(whole / "student", tmp_path / "student")
    for path in folder.glob("*.py"):
        path.write_text(path.read_text() + RAN.format(proof=str(proof)))
    for trust in (False, True):
        fastwhisper.load_checkpoint(folder, trust_remote_code=trust)
    assert not proof.exists()


FROM_HUB = """
import json, sys
from pathlib import Path
from fastwhisper.cli.main import main

def transcribe(*flags):
    return main(["transcribe", sys.argv[1], "--model", "tester/own", *flags]), Path(sys.argv[2]).exists()

print(json.dumps([transcribe(), transcribe("--trust_remote_code")]))
"""


def test_a_repository_on_the_hub_is_treated_as_a_folder(whisper, whole, tmp_path, proof):
    with running_hub() as hub:
        hub.branches["tester/own"] = {}
        hub.add_commit("tester/own", "main", {path.name: path.read_bytes() for path in whisper.iterdir()})
        plain, trusted = python_answer(FROM_HUB, tmp_path, whole / "a.wav", proof, **hub.environment())
    assert plain == [0, False] and trusted == [0, True]
