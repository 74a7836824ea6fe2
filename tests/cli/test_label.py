"""`fastwhisper label` on a tiny teacher: options, bad input as one line, two processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import WhisperFeatureExtractor, WhisperProcessor

import fastwhisper
from fastwhisper.cli.main import main
from fastwhisper.data.loading import load_speech_dataset

from ..sounds import write_nan, write_noise_bytes, write_speech_folder
from ..tiny_models import tiny_whisper


@pytest.fixture(scope="module")
def teacher_folder(demo_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    tiny_whisper(demo_tokenizer, encoder_layers=1, decoder_layers=1, max_target_positions=24).save_pretrained(folder)
    extractor = WhisperFeatureExtractor(feature_size=80, chunk_length=2)
    WhisperProcessor(extractor, demo_tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture
def speech(tmp_path):
    return write_speech_folder(tmp_path / "speech", [0.3, 0.5, 0.7, 0.9, 1.1])


def options(teacher, dataset, output, *more):
    fixed = ["--batch_size", "2", "--no_timestamps", "--language", "en"]
    return ["label", "--model", str(teacher), "--dataset", str(dataset), "--output", str(output), *fixed, *more]


def only_error(capsys):
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("fastwhisper label: error: ")
    return line


def test_labels_load_as_a_dataset(teacher_folder, speech, tmp_path, capsys):
    assert main(options(teacher_folder, speech, tmp_path / "labels", "--limit", "3", "--wer_filter", "1000")) == 0
    printed = capsys.readouterr().out
    assert "labelled 3 rows; 3 of them are in" in printed and "left out 0 whose label and reference" in printed
    labels = load_speech_dataset(tmp_path / "labels")
    assert labels["reference"][:] == ["sentence 0", "sentence 1", "sentence 2"]
    assert (tmp_path / "labels" / "labelling.json").is_file()


def test_folders_in_python_are_paths_too(teacher_folder, speech, tmp_path):
    assert isinstance(teacher_folder, Path)
    assert fastwhisper.label(teacher_folder, speech, tmp_path / "labels", timestamps=False, limit=1).kept == 1
    report = fastwhisper.evaluate(teacher_folder, speech, limit=1, show_progress=False)
    assert [model["name"] for model in report["models"]] == [teacher_folder.name]


def test_recipe_with_timestamps(teacher_folder, speech, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"model: {teacher_folder}\ndataset: {speech}\noutput: {tmp_path / 'labels'}\nlimit: 1\n")
    assert main(["label", "--config", str(recipe)]) == 0
    (row,) = load_speech_dataset(tmp_path / "labels")
    assert row["language"] == "en" and row["timestamped_text"] is not None


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--text_column", "words", "--wer_filter", "0.1"], "no column 'words' for the text; its columns are audio"),
        (["--audio_column", "sound"], "no column sound that names the audio files"),
        (["--split", "test"], "no split 'test'; it has train"),
        (["--dataset", "/nowhere/at/all"], "there is no folder /nowhere/at/all"),
        (["--model", "/nowhere/at/all"], "/nowhere/at/all is not a checkpoint"),
        (["--language", "klingon"], "klingon"),
        (["--task", "summarize"], "there is no task 'summarize'"),
        (["--dtype", "int8"], "there is no dtype 'int8'"),
        (["--batch_size", "0"], "batch_size must be 1 or more, not 0"),
        (["--wer_filter", "-1"], "wer_filter must be a number of 0 or more, not -1"),
        (["--batch_size", "two"], "invalid int value"),
    ],
)
def test_bad_options_are_one_line(teacher_folder, speech, tmp_path, capsys, more, message):
    assert main(options(teacher_folder, speech, tmp_path / "labels", *more)) == 2
    assert message in only_error(capsys)
    assert not (tmp_path / "labels").exists()


def test_bad_audio_is_left_out_by_name(teacher_folder, speech, tmp_path, caplog):
    write_nan(speech / "3.wav")
    assert main(options(teacher_folder, speech, tmp_path / "labels")) == 0
    assert "row 3 dropped: " in caplog.text and "3.wav has samples that are NaN" in caplog.text
    assert "1 of 5 rows dropped: 1 bad audio" in caplog.text
    assert len((tmp_path / "labels" / "metadata.jsonl").read_text().splitlines()) == 4


def test_bad_audio_that_stops_is_one_line(teacher_folder, speech, tmp_path, capsys):
    for write, message in ((write_nan, "3.wav has samples that are NaN"), (write_noise_bytes, "3.wav cannot be read")):
        write(speech / "3.wav")
        assert main(options(teacher_folder, speech, tmp_path / "labels", "--on_bad_audio", "stop")) == 2
        line = only_error(capsys)
        assert "row 3: " in line and message in line
        assert not (tmp_path / "labels").exists()


def test_empty_audio_is_dropped_with_a_count(teacher_folder, tmp_path, caplog, capsys):
    speech = write_speech_folder(tmp_path / "some", [0.3, 0.0])
    assert main(options(teacher_folder, speech, tmp_path / "labels")) == 0
    assert "1 of 2 rows dropped: 1 empty audio" in caplog.text
    capsys.readouterr()
    speech = write_speech_folder(tmp_path / "none", [0.0, 0.0])
    assert main(options(teacher_folder, speech, tmp_path / "nothing")) == 2
    assert "no rows left" in only_error(capsys)


def test_empty_dataset(teacher_folder, tmp_path, capsys):
    (tmp_path / "metadata.csv").write_text("file_name,text\n")
    assert main(options(teacher_folder, tmp_path, tmp_path / "labels")) == 2
    assert "metadata.csv has no rows" in only_error(capsys)


def test_two_processes_label_each_row_once(teacher_folder, speech, tmp_path):
    assert main(options(teacher_folder, speech, tmp_path / "one")) == 0
    # The launcher's --cpu would start one process alone, whatever --num_processes says.
    flags = "--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no --dynamo_backend no"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", *flags.split(), "--main_process_port", "0"]
    launcher += ["-m", "fastwhisper"]
    run = subprocess.run(
        [*launcher, *options(teacher_folder, speech, tmp_path / "two")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("labelled 5 rows") == 1
    parts = sorted((tmp_path / "two" / "parts").iterdir())
    batches = [[json.loads(line)["batch"] for line in part.read_text().splitlines()] for part in parts]
    assert batches == [[0, 2], [1]]
    assert (tmp_path / "two" / "metadata.jsonl").read_bytes() == (tmp_path / "one" / "metadata.jsonl").read_bytes()


def test_the_table_names_audio_from_where_it_lies(whisper_folder, speech_folder, tmp_path):
    """Also where the folder is reached by a link."""
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    output = tmp_path / "link" / "labels"
    assert (
        main(["label", "--model", str(whisper_folder), "--dataset", str(speech_folder), "--output", str(output)]) == 0
    )
    names = [json.loads(line)["file_name"] for line in (output / "metadata.jsonl").read_text().splitlines()]
    assert all(name.startswith("../") and str(speech_folder) not in name for name in names)
    rows = load_speech_dataset(output)
    assert [row["audio"]["path"] for row in rows] == [str(speech_folder / f"{index}.wav") for index in range(6)]
