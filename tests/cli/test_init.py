"""`fastwhisper init`: a folder that loads, or one line and nothing."""

import errno
import json
import os

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.cli.main import main
from fastwhisper.hub_cards.new_student import write_new_student

from ..recordings import noise


def test_the_folder_loads_and_transcribes(whisper_folder, tmp_path, capsys):
    output = tmp_path / "students" / "small"
    words = ["init", "--teacher", str(whisper_folder), "--output", str(output), "--decoder_layers", "2"]
    assert main([*words, "--encoder_layers", "1"]) == 0
    said = capsys.readouterr()
    assert str(output) in said.out and "encoder 1 of 2 layers, decoder 2 of 4 (teacher layers [0, 3])" in said.out
    assert said.out.count("\n") == 1 and said.err == ""
    assert [path.name for path in output.parent.iterdir()] == ["small"]  # nothing beside it
    processor = WhisperProcessor.from_pretrained(output)
    features = processor(noise(1.0), sampling_rate=16_000, return_tensors="pt").input_features
    for kind in (FastWhisperForConditionalGeneration, WhisperForConditionalGeneration):
        student = kind.from_pretrained(output)
        assert student.generate(features, language="en", max_new_tokens=4).shape[0] == 1
    config = json.loads((output / "config.json").read_text())
    assert config["teacher"] == "teacher" and config["decoder_layers"] == 2
    assert (output / "modeling_fastwhisper.py").is_file() and (output / "preprocessor_config.json").is_file()


def test_the_plain_function(whisper_folder, tmp_path):
    folder = tmp_path / "student"
    write_new_student(str(whisper_folder), folder)
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    teacher = WhisperForConditionalGeneration.from_pretrained(whisper_folder)
    assert student.config.decoder_layers == 4
    assert torch.equal(student.model.decoder.layers[3].fc2.weight, teacher.model.decoder.layers[3].fc2.weight)


def test_an_existing_folder_stays_as_it_is(whisper_folder, tmp_path, refused):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    said = refused("init", "--teacher", whisper_folder, "--output", tmp_path / "mine")
    assert f"{tmp_path / 'mine'} already exists" in said
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--decoder_layers", "5"], "decoder_layers=5 is impossible: the teacher has 4 decoder layers"),
        (["--decoder_layers", "0"], "decoder_layers=0 is impossible: the teacher has 4"),
        (["--encoder_layers", "-1"], "encoder_layers=-1 is impossible: the teacher has 2 encoder layers"),
        (["--teacher", "/nowhere/at/all"], "/nowhere/at/all is not a checkpoint"),
        (["--layers", "2"], "unknown arguments: --layers 2"),
        (["--config", "/nowhere.yaml"], "the recipe /nowhere.yaml cannot be read"),
    ],
)
def test_bad_requests_are_one_line_and_write_nothing(whisper_folder, tmp_path, refused, flags, said):
    words = ["--teacher", whisper_folder, "--output", tmp_path / "new" / "student"]
    assert said in refused("init", *words, *flags)
    assert not list(tmp_path.iterdir())


def test_another_kind_of_model_is_one_line(tmp_path, refused, demo_tokenizer):
    config = BertConfig(vocab_size=20, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    BertForMaskedLM(config).save_pretrained(tmp_path / "bert")
    assert "bert is no" in refused("init", "--teacher", tmp_path / "bert", "--output", tmp_path / "student")
    demo_tokenizer.save_pretrained(tmp_path / "bert")
    said = refused("init", "--teacher", tmp_path / "bert", "--output", tmp_path / "student")
    assert "bert is no" in said and not (tmp_path / "student").exists()


def test_a_failure_while_writing_leaves_nothing(whisper_folder, tmp_path, monkeypatch, refused):
    def fail(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("fastwhisper.hub_cards.export.write_remote_code", fail)
    said = refused("init", "--teacher", whisper_folder, "--output", tmp_path / "student")
    assert "no space left on the disk" in said and not list(tmp_path.iterdir())
