"""`fastwhisper export` and `import` from folder to folder, `transcribe` on what they write, and what they refuse."""

import importlib.util
import json

import pytest

from fastwhisper.cli.main import main
from fastwhisper.conversion import export as module
from fastwhisper.demo.training import PACKAGED_TEACHER

from ..engines import write_tiny_student
from ..recordings import write_noise


@pytest.fixture(scope="module")
def student(demo_tokenizer, tmp_path_factory):
    """The folder of a student at true length that writes no times."""
    place = tmp_path_factory.mktemp("student") / "student"
    return write_tiny_student(place, demo_tokenizer, true_length=True, allowed=400, seed=4)


@pytest.fixture(scope="module")
def exported(student, tmp_path_factory):
    pytest.importorskip("ctranslate2", reason="needs CTranslate2: pip install fastwhisper[ctranslate2]")
    folder = tmp_path_factory.mktemp("exported") / "ctranslate2"
    assert main(["export", str(student), "--to", "ctranslate2", "--output", str(folder)]) == 0
    return folder


def test_transcripts_of_both_engines_are_the_same_files(tmp_path):
    """Of the demo's teacher: a random model is doubtful, and then draws its text."""
    pytest.importorskip("ctranslate2", reason="needs CTranslate2: pip install fastwhisper[ctranslate2]")
    exported = str(tmp_path / "exported")
    assert main(["export", str(PACKAGED_TEACHER), "--to", "ctranslate2", "--output", exported]) == 0
    audio = [str(write_noise(tmp_path / f"{index}.wav", 0.6 + 0.5 * index, index)) for index in range(3)]
    formats = ["--format", "txt", "srt", "vtt", "json", "--output"]
    for engine, model in (("transformers", str(PACKAGED_TEACHER)), ("ctranslate2", exported)):
        argv = [*audio, "--model", model, "--engine", engine, "--device", "cpu", *formats, str(tmp_path / engine)]
        assert main(["transcribe", *argv]) == 0
    written = sorted(path.name for path in (tmp_path / "transformers").iterdir())
    assert len(written) == 12
    for name in written:
        assert (tmp_path / "ctranslate2" / name).read_text() == (tmp_path / "transformers" / name).read_text(), name


def test_there_and_back(student, exported, tmp_path, capsys):
    assert main(["import", str(exported), "--output", str(tmp_path / "back")]) == 0
    assert str(tmp_path / "back") in capsys.readouterr().out
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (student, tmp_path / "back"))
    assert after == before and after["true_length"] is True


def test_the_folder_says_how_it_is_called(exported, capsys):
    readme = (exported / "README.md").read_text()
    assert "--engine ctranslate2" in readme and "16_000 + 0.5)" in readme


def test_bad_requests_are_one_line(student, exported, tmp_path, refused):
    output = ("--output", tmp_path / "out")
    assert "no export to 'tflite'" in refused("export", student, "--to", "tflite", *output)
    line = refused("export", student, "--to", "ctranslate2", "--quantization", "int3", *output)
    assert "no quantization 'int3'; it has float32" in line
    assert "whisper has no quantization" in refused(
        "export", student, "--to", "whisper", "--quantization", "int8", *output
    )
    assert "give one MODEL" in refused("export", "--to", "whisper", *output)
    assert "nowhere" in refused("export", tmp_path / "nowhere", "--to", "whisper", *output)
    assert "already exists" in refused("export", student, "--to", "whisper", "--output", student)
    assert "give one CHECKPOINT" in refused("import", *output)
    assert "already exists" in refused("import", exported, "--output", student)
    assert "4 x d_model" in refused("export", student, "--to", "openai", *output)
    audio = write_noise(tmp_path / "a.wav", 0.5)
    assert "add --engine ctranslate2" in refused("transcribe", audio, "--model", exported)
    assert "export MODEL --to ctranslate2" in refused(
        "transcribe", audio, "--model", student, "--engine", "ctranslate2"
    )
    assert "no engine 'jax'" in refused("transcribe", audio, "--model", student, "--engine", "jax")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "target, package, extra", [("ctranslate2", "ctranslate2", "ctranslate2"), ("onnx", "onnxscript", "onnx")]
)
def test_a_missing_engine_names_the_extra(student, tmp_path, refused, monkeypatch, target, package, extra):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest)
    )
    line = refused("export", student, "--to", target, "--output", tmp_path / "out")
    assert f'{package} is not installed: pip install "fastwhisper[{extra}]"' in line


def test_a_failure_leaves_nothing(student, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "write_whisper", fail)
    assert main(["export", str(student), "--to", "whisper", "--output", str(tmp_path / "out")]) == 2
    assert list(tmp_path.iterdir()) == []
