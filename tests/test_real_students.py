"""Students of all layers of published Whispers: clients of others get from them what they get from the teacher."""

import csv
import os
from pathlib import Path

import pytest
from peft import AutoPeftModel, LoraConfig, get_peft_model
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.transcription.checkpoints import load_checkpoint

# As openai/whisper-base on the Hub has them, in config.json and in generation_config.json.
HUB_IDS = [[1, 50259], [2, 50359], [3, 50363]], [[1, None], [2, 50359]]
REBUILT = ("is_multilingual", "lang_to_id", "task_to_id", "no_timestamps_token_id", "prev_sot_token_id", "max_length")


def without_generation_config(source: Path, folder: Path) -> Path:
    folder.mkdir()
    for file in source.iterdir():
        if file.name != "generation_config.json":
            os.symlink(file, folder / file.name)
    return folder


def german_clips(folder: Path, count: int) -> list[tuple[Path, str]]:
    with open(folder / "metadata.tsv", encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file, delimiter="\t") if row["language"] == "de"]
    return [(folder / row["file_name"], row["text"]) for row in rows[:count]]


@pytest.fixture(scope="module")
def english(real_model, tmp_path_factory):
    """whisper-tiny.en, its processor, and the folder of its student."""
    name = real_model("whisper-tiny.en")
    teacher, processor = load_checkpoint(str(name), "cpu")
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=4)
    return teacher, processor, export_folder(student, processor, tmp_path_factory.mktemp("real") / "student")


@pytest.fixture(scope="module")
def speech(real_speech):
    return load_audio(sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[0])


def said(model, processor, samples, **options):
    parts = {"tokenizer": processor.tokenizer, "feature_extractor": processor.feature_extractor}
    return pipeline("automatic-speech-recognition", model=model, **parts)(samples.copy(), **options)


@pytest.mark.parametrize("in_generation_config", [HUB_IDS[1], None])
def test_german_stays_german_without_a_language(real_model, real_speech, in_generation_config):
    name = real_model("whisper-base")
    teacher = WhisperForConditionalGeneration.from_pretrained(name)
    processor = WhisperProcessor.from_pretrained(name)
    teacher.config.forced_decoder_ids = HUB_IDS[0]
    teacher.generation_config.forced_decoder_ids = in_generation_config
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=6)
    ((path, text),) = german_clips(real_speech("common_voice"), 1)
    samples = load_audio(path)
    heard = said(student, processor, samples)
    assert heard == said(teacher, processor, samples)
    if in_generation_config:
        assert heard["text"].split()[:2] == text.split()[:2]


@pytest.mark.parametrize("name", ["whisper-base", "whisper-tiny.en"])
def test_a_generation_config_is_rebuilt_as_it_was(real_model, tmp_path, name):
    folder = real_model(name)
    whole, _ = load_checkpoint(str(folder), "cpu")
    rebuilt, _ = load_checkpoint(str(without_generation_config(folder, tmp_path / name)), "cpu")
    expected, mine = (model.generation_config.to_dict() for model in (whole, rebuilt))
    for setting in (*REBUILT, "max_initial_timestamp_index", "decoder_start_token_id", "eos_token_id"):
        assert mine.get(setting) == expected.get(setting), setting


def test_words_of_the_pipeline(english, speech):
    teacher, processor, folder = english
    student = WhisperForConditionalGeneration.from_pretrained(folder)
    expected = said(teacher, processor, speech, return_timestamps="word")
    assert len(expected["chunks"]) > 3
    assert said(student, processor, speech, return_timestamps="word") == expected


def test_fresh_adapters_change_nothing_when_they_are_merged(english, speech, tmp_path):
    teacher, processor, folder = english
    student = FastWhisperForConditionalGeneration.from_pretrained(folder)
    get_peft_model(student, LoraConfig(r=4, target_modules=["q_proj", "v_proj"])).save_pretrained(tmp_path)
    merged = AutoPeftModel.from_pretrained(tmp_path).merge_and_unload().eval()
    assert said(merged, processor, speech) == said(teacher, processor, speech)
