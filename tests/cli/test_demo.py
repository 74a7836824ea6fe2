"""`fastwhisper demo`: what it writes and prints, and what it refuses before it does anything."""

import json
import logging
import re
import shutil
from pathlib import Path

import pytest

from fastwhisper.cli.main import main
from fastwhisper.demo.run import FINE_TUNED_TEACHER

from ..sounds import write_speech_folder
from .conftest import SENTENCES

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def level_of_the_log():
    """The demo silences the package for its process, and with it every later test that reads the log."""
    logger = logging.getLogger("fastwhisper")
    level = logger.level
    yield
    logger.setLevel(level)


def test_the_student_is_at_true_length_and_was_measured_beside_its_teacher(demo_folder):
    student = demo_folder / "demo" / "student"
    config = json.loads((student / "config.json").read_text())
    assert config["true_length"] is True and config["decoder_layers"] == 1
    report = json.loads((student / "evaluation.json").read_text())
    assert [model["name"] for model in report["models"]] == ["student", "teacher"]
    assert report["dataset"]["rows"] == 6 and report["settings"]["batch_size"] == 1
    held_out = (demo_folder / "demo" / "held_out" / "metadata.csv").read_text()
    assert held_out.startswith("file_name,text,speaker")


def test_the_figure_of_the_fine_tuned_teacher_is_the_one_that_was_measured():
    path = ROOT / "benchmarks" / "results" / "demo_finetuned.json"
    if not path.is_file():
        pytest.skip("it has not been measured yet: python benchmarks/demo_finetuned.py --output benchmarks/results")
    record = json.loads(path.read_text())
    rate = f"{100 * record['evaluation']['models'][0]['wer']:.1f} %"
    assert rate in FINE_TUNED_TEACHER and rate in (ROOT / "docs" / "demo.md").read_text()


@pytest.fixture
def own_folder(tmp_path):
    """Thirty rows by five speakers."""
    folder = write_speech_folder(tmp_path / "mine", [0.3 + 0.03 * index for index in range(30)], SENTENCES * 5)
    lines = (folder / "metadata.csv").read_text().splitlines()
    said = [lines[0], *(f"{line.rpartition(',')[0]},guest {index % 5}" for index, line in enumerate(lines[1:]))]
    (folder / "metadata.csv").write_text("\n".join(said) + "\n")
    return folder


def test_any_whisper_and_a_folder_of_ones_own(whisper_folder, own_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--teacher", str(whisper_folder), "--dataset", "mine", "--language", "en", "--steps", "2"]
    assert main(["demo", "--output", "made", *words, "--decoder_layers", "1", "--held_out_clips", "3"]) == 0

    printed = capsys.readouterr().out
    assert re.search(r"\d+ clips to train on, 3 of 1 other speakers to measure on", printed)
    assert "2 steps of 8 rows" in printed and FINE_TUNED_TEACHER not in printed
    student = tmp_path / "made" / "student"
    config = json.loads((student / "config.json").read_text())
    assert config["true_length"] is True and config["decoder_layers"] == 1
    report = json.loads((student / "evaluation.json").read_text())
    assert report["dataset"]["rows"] == 3 and report["dataset"]["name"] == "mine, held out"
    assert "mine" in (student / "README.md").read_text()
    assert (tmp_path / "made" / "recording.vtt").read_text().startswith("WEBVTT")


def test_the_time_makes_the_steps(whisper_folder, own_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = ["--teacher", str(whisper_folder), "--dataset", "mine", "--language", "en", "--minutes", "0.001"]
    assert main(["demo", "--output", "made", *words, "--held_out_clips", "2"]) == 0
    assert re.search(r"\d+ steps of 8 rows, \d\.\d epochs, about 0 minutes", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--teacher", "TEACHER"], "--teacher needs --dataset"),
        (["--dataset", "mine"], "--dataset needs --teacher"),
        (["--minutes", "3"], "--minutes is for speech of your own"),
        (["--teacher", "TEACHER", "--dataset", "mine", "--clips", "9"], "--clips is for synthetic speech"),
        (["--teacher", "TEACHER", "--dataset", "mine"], "say what is spoken with --language"),
        (["--teacher", "TEACHER", "--dataset", "mine", "--language", "de"], "has no language 'de'"),
        (["--teacher", "TEACHER", "--dataset", "mine", "--language", "en", "--minutes", "0"], "minutes=0.0 must be"),
        (["--teacher", "TEACHER", "--dataset", "nowhere/at/all", "--language", "en"], "there is no folder"),
        (["--teacher", "TEACHER", "--dataset", "mine", "--language", "en", "--decoder_layers", "9"], "1 to 4"),
        (["--teacher", "TEACHER", "--dataset", "mine", "--language", "en", "--limit", "9"], "the demo needs 20"),
        (["--steps", "0"], "steps must be 1 or more"),
        (["--decoder_layers", "7"], "decoder_layers=7"),
        (["--output", "mine"], "is not empty"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(
    whisper_folder, own_folder, tmp_path, monkeypatch, refused, words, says
):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(whisper_folder, "TEACHER")
    before = sorted(tmp_path.rglob("*"))
    assert says in refused("demo", *words)
    assert sorted(tmp_path.rglob("*")) == before
