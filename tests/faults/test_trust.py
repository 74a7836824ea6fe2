"""No code of a model folder runs, whoever answers a question on standard input; our own folders load without one."""

import io
import json
import logging
import shutil

import pytest

from fastwhisper.cli.main import main
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.model_folders import _say_not_run

from ..fastslm_parts import tiny_pair
from ..hub_folders import save_student
from ..recordings import write_noise
from ..sounds import write_speech_folder

CODE = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
pathlib.Path({proof!r}).touch()
class Evil: pass
def generate(*args, **kwargs): pass
"""
MAPS = {
    "config.json": ("AutoConfig", "AutoModel", "AutoModelForSpeechSeq2Seq", "AutoModelForCausalLM", "AutoProcessor"),
    "processor_config.json": ("AutoProcessor", "AutoFeatureExtractor"),
    "preprocessor_config.json": ("AutoProcessor", "AutoFeatureExtractor"),
    "tokenizer_config.json": ("AutoTokenizer", "AutoProcessor"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory, demo_tokenizer):
    place = tmp_path_factory.mktemp("trust")
    save_student(place / "whisper", demo_tokenizer)
    export_folder(*tiny_pair(), place / "fastslm")
    write_noise(place / "a.wav", 1.0)
    return place


@pytest.fixture
def hostile(whole, tmp_path, monkeypatch):
    """Make a folder name code for everything that can name some, with `y` on standard input for ever."""
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"y\n" * 100)))

    def make(kind, **settings):
        folder = shutil.copytree(whole / kind, tmp_path / kind)
        proof = tmp_path / "proof"
        (folder / "evil.py").write_text(CODE.format(proof=str(proof)))
        (folder / "custom_generate").mkdir()
        (folder / "custom_generate" / "generate.py").write_text(CODE.format(proof=str(proof)))
        for file, names in MAPS.items():
            if (folder / file).is_file():
                content = json.loads((folder / file).read_text())
                classes = {name: ["evil.Evil", "evil.Evil"] if "Tokenizer" in name else "evil.Evil" for name in names}
                (folder / file).write_text(json.dumps({**content, "auto_map": classes, **settings.get(file, {})}))
        return folder, proof

    return make


def commands(kind, folder, whole, new):
    if kind == "fastslm":
        yield ["slm", "transcribe", whole / "a.wav", "--model", folder, "--max_new_tokens", 2]
        yield ["convert-fastslm", folder, new / "out.safetensors", "--reverse"]
        return
    yield ["transcribe", whole / "a.wav", "--model", folder]
    yield ["init", "--teacher", folder, "--decoder_layers", 1, "--output", new / "student"]
    yield ["slm", "init", "--encoder", folder, "--language_model", folder, "--output", new / "slm"]
    yield ["card", folder, "--overwrite"]
    yield ["push", folder, "tester/student"]


@pytest.mark.parametrize("kind", ["whisper", "fastslm"])
@pytest.mark.parametrize("named", ["", "processor", "tokenizer", "model"])
def test_no_code_of_a_folder_runs(kind, named, hostile, whole, tmp_path, capsys):
    settings = {
        "": {},
        "processor": {
            "processor_config.json": {"processor_class": "Evil"},
            "preprocessor_config.json": {"feature_extractor_type": "Evil", "processor_class": "Evil"},
        },
        "tokenizer": {"tokenizer_config.json": {"tokenizer_class": "Evil"}},
        "model": {"config.json": {"model_type": "evil"}},
    }[named]
    folder, proof = hostile(kind, **settings)
    for words in commands(kind, folder, whole, tmp_path):
        code = main([str(word) for word in words])
        captured = capsys.readouterr()
        assert code in (0, 2), words
        assert not proof.exists() and not (folder / "ran").exists(), words
        assert "[y/N]" not in captured.out + captured.err, words


def test_loading_says_in_one_line_that_code_is_not_run(hostile, whole, capsys, caplog):
    folder, _ = hostile("whisper")
    with caplog.at_level(logging.WARNING, "fastwhisper"):
        assert main(["transcribe", str(whole / "a.wav"), "--model", str(folder)]) == 0
    said = [message for message in caplog.messages if "not run" in message]
    assert len(said) == 1 and "evil.Evil" in said[0]


def test_a_teacher_with_a_cache_is_told_of_once(hostile, tmp_path, caplog):
    folder, proof = hostile("whisper")
    speech = write_speech_folder(tmp_path / "speech", [0.5, 0.7], ["yes please", "good night"])
    cache = ["--teacher_cache", tmp_path / "cache", "--language", "en"]
    label = ["label", "--model", folder, "--dataset", speech, "--output", tmp_path / "labels", *cache]
    init = ["init", "--teacher", folder, "--decoder_layers", 1, "--output", tmp_path / "student"]
    distill = ["distill", "--teacher", folder, "--student", tmp_path / "student", "--dataset", speech, *cache]
    distill += ["--output_dir", tmp_path / "run", "--max_steps", 1, "--use_cpu"]
    assert main([*map(str, init)]) == 0
    for words in (label, distill):
        _say_not_run.cache_clear()
        caplog.clear()
        with caplog.at_level(logging.WARNING, "fastwhisper"):
            assert main([*map(str, words)]) == 0, words
        # The folders that distill writes are others, and named for themselves.
        assert len([message for message in caplog.messages if message.startswith(f"{folder} names code")]) == 1, words
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["whisper", "fastslm"])
def test_our_own_folders_load_without_a_question(kind, whole, monkeypatch, capsys, caplog):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"n\n" * 100)))
    verb = ["transcribe"] if kind == "whisper" else ["slm", "transcribe"]
    assert main([*verb, str(whole / "a.wav"), "--model", str(whole / kind)]) == 0
    assert "not run" not in caplog.text and "[y/N]" not in capsys.readouterr().out
