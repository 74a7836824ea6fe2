"""`fastwhisper evaluate` from checkpoints and a folder to a table and a report."""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from transformers.models.whisper.modeling_whisper import WhisperEncoderLayer

from fastwhisper import FastWhisperForConditionalGeneration, evaluate
from fastwhisper.cli.main import main

from ..recordings import save_checkpoint, write_noise
from ..tiny_models import tiny_whisper

TEXTS = ["turn on the lamp", "never mind", "yes please"]


@pytest.fixture(scope="module")
def checkpoints(demo_tokenizer, tmp_path_factory):
    """A student with one decoder layer and its teacher."""
    folder = tmp_path_factory.mktemp("models")
    teacher = tiny_whisper(demo_tokenizer, max_target_positions=16)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)
    return (
        str(save_checkpoint(student, demo_tokenizer, folder / "student")),
        str(save_checkpoint(teacher, demo_tokenizer, folder / "teacher")),
    )


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "speech"
    lines = ["file_name\ttext"]
    for index, text in enumerate(TEXTS):
        write_noise(folder / f"{index}.wav", 0.6, index)
        lines.append(f"{index}.wav\t{text}")
    (folder / "metadata.tsv").write_text("\n".join(lines) + "\n")
    return folder


def refused(capsys, *argv: str) -> str:
    """The one line of an error of input."""
    assert main(["evaluate", *argv]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    assert captured.err.startswith("fastwhisper evaluate: error: ")
    return captured.err


def test_two_models_to_a_table_and_a_report(checkpoints, data, tmp_path, capsys):
    student, teacher = checkpoints
    output, predictions = tmp_path / "out" / "report.json", tmp_path / "predictions.jsonl"
    argv = ["--model", student, "--against", teacher, "--dataset", str(data), "--output", str(output)]
    argv += ["--predictions", str(predictions), "--language", "en", "--batch_size", "2"]
    assert main(["evaluate", *argv]) == 0
    captured = capsys.readouterr()
    assert "WER" in captured.out and "student" in captured.out and str(output) in captured.out.replace("\n", "")
    assert captured.err == ""
    report = json.loads(output.read_text())
    assert [(model["name"], model["role"]) for model in report["models"]] == [
        ("student", "student"),
        ("teacher", "teacher"),
    ]
    weights = [hashlib.sha256((Path(folder) / "model.safetensors").read_bytes()).hexdigest() for folder in checkpoints]
    assert [(model["folder"], model["weights_sha256"]) for model in report["models"]] == [
        ("student", weights[0]),
        ("teacher", weights[1]),
    ]
    assert report["dataset"]["name"] == "speech" and report["dataset"]["rows"] == 3
    assert report["settings"]["language"] == "en"
    assert report["speed_ratio"] > 0
    assert len(predictions.read_text().splitlines()) == 3
    assert sorted(path.name for path in output.parent.iterdir()) == ["report.json"]


def test_the_plain_function(checkpoints, data):
    report = evaluate(checkpoints[1], data, limit=2, repeats=2)
    assert json.loads(json.dumps(report)) == report
    assert report["dataset"]["rows"] == 2 and report["settings"]["repeats"] == 2
    assert report["speed_ratio"] is None and len(report["models"]) == 1


def test_a_bad_row_that_stops_is_named_and_nothing_is_written(checkpoints, data, tmp_path, capsys):
    (data / "2.wav").write_bytes(b"no audio")
    output, predictions = tmp_path / "report.json", tmp_path / "predictions.jsonl"
    argv = [
        "--model",
        checkpoints[0],
        "--dataset",
        str(data),
        "--output",
        str(output),
        "--predictions",
        str(predictions),
    ]
    assert "2.wav" in refused(capsys, *argv, "--on_bad_audio", "stop")
    assert not output.exists() and not predictions.exists()
    assert main(["evaluate", *argv]) == 0
    assert json.loads(output.read_text())["dataset"]["dropped"] == {"bad audio": 1}


def test_bad_requests_are_one_line(checkpoints, data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    student, teacher = checkpoints
    model, rows = ("--model", student), ("--dataset", str(data))
    assert "--model" in refused(capsys, *rows)
    assert "nowhere" in refused(capsys, *model, "--dataset", str(tmp_path / "nowhere"))
    assert "nowhere" in refused(capsys, "--model", str(tmp_path / "nowhere"), *rows)
    assert "transcription" in refused(capsys, *model, *rows, "--text_column", "transcription")
    assert "it has en" in refused(capsys, *model, *rows, "--language", "de")
    assert "batch_size must be 1 or more, not 0" in refused(capsys, *model, *rows, "--batch_size", "0")
    assert "is a folder" in refused(capsys, *model, *rows, "--output", str(tmp_path))
    assert "different names" in refused(capsys, "--model", teacher, "--against", teacher, *rows)
    assert not list(tmp_path.glob("*.json*"))


@pytest.mark.parametrize("name, limit", [("kathleen_arctic", 2)])
def test_human_sentences(checkpoints, real_speech, name, limit):
    report = evaluate(checkpoints[0], real_speech(name), limit=limit, language="en")
    assert report["dataset"]["rows"] == limit and report["models"][0]["words"] > 10


def test_human_digits_at_8_khz(checkpoints, real_speech, tmp_path):
    folder = tmp_path / "digits"
    folder.mkdir()
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    files = sorted((real_speech("fsdd") / "recordings").glob("*_0.wav"))[:6]
    lines = [{"file_name": file.name, "text": names[int(file.name[0])]} for file in files]
    for file in files:
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = evaluate(checkpoints[0], folder, language="en")
    assert report["dataset"]["rows"] == report["models"][0]["words"] == 6
    assert 0.5 < report["dataset"]["audio_seconds"] < 6


@pytest.mark.parametrize("flags", [[], ["--full_length"]])
def test_a_student_at_true_length_is_measured_so_or_at_30_seconds(checkpoints, data, tmp_path, monkeypatch, flags):
    student, teacher = checkpoints
    folder = shutil.copytree(student, tmp_path / "at_true_length")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "true_length": True, "true_length_margin": 0.25}))
    layer, positions = WhisperEncoderLayer.forward, set()

    def count(self, states, *args, **kwargs):
        positions.add(states.shape[1])
        return layer(self, states, *args, **kwargs)

    monkeypatch.setattr(WhisperEncoderLayer, "forward", count)
    output = tmp_path / "report.json"
    argv = ["--model", str(folder), "--against", teacher, "--dataset", str(data), "--output", str(output)]
    assert main(["evaluate", *argv, "--language", "en", *flags]) == 0
    report = json.loads(output.read_text())
    assert [model["true_length"] for model in report["models"]] == [not flags, False]
    # Of clips of 0.6 s and the margin; the teacher reads windows of 2 s.
    assert positions == ({100} if flags else {50, 100})
