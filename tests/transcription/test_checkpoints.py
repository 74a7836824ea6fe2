"""Whispers whose generation config is old or missing work in every verb as those of OpenAI."""

import json

import pytest

from fastwhisper import ASKDTrainingArguments, distill, evaluate
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts
from fastwhisper.transcription.subtitles import WRITERS

from ..recordings import noise, save_checkpoint
from ..sounds import write_speech_folder
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer


@pytest.fixture(scope="module", params=["missing", "old"])
def checkpoint(request, tmp_path_factory):
    """A multilingual Whisper as a fine-tune of early 2023 lies on the Hub."""
    model = tiny_whisper(whisper_tokenizer(), d_model=8, decoder_layers=2, encoder_layers=1, max_target_positions=12)
    folder = save_checkpoint(model, whisper_tokenizer(), tmp_path_factory.mktemp("old") / request.param)
    path = folder / "generation_config.json"
    if request.param == "missing":
        path.unlink()
    else:
        path.write_text(json.dumps({"_from_model_config": True, "decoder_start_token_id": 50258, "max_length": 12}))
    return str(folder)


def test_languages_and_times(checkpoint):
    model, processor = load_checkpoint(checkpoint, "cpu")
    options = GenerationOptions(language="hi", task="translate", timestamps=True, temperatures=(0.0,))
    (transcript,) = generate_transcripts(model, processor, [noise(1.5)], options)
    assert transcript.language == "hi"
    for kind in ("srt", "json"):
        assert WRITERS[kind]("a.wav", transcript)
    (heard,) = generate_transcripts(model, processor, [noise(1.5)])
    assert f"<|{heard.language}|>" in model.generation_config.lang_to_id
    words = GenerationOptions(language="hi", word_timestamps=True, temperatures=(0.0,))
    assert generate_transcripts(model, processor, [noise(1.5)], words)[0].language == "hi"


def test_an_english_model_is_not_made_multilingual(tmp_path):
    model = tiny_whisper(whisper_tokenizer("gpt2"), d_model=8, decoder_layers=2, max_target_positions=12)
    folder = save_checkpoint(model, whisper_tokenizer("gpt2"), tmp_path)
    (folder / "generation_config.json").unlink()
    model, processor = load_checkpoint(str(folder), "cpu")
    options = GenerationOptions(timestamps=True, temperatures=(0.0,))
    (transcript,) = generate_transcripts(model, processor, [noise(1.5)], options)
    assert transcript.language == "en" and WRITERS["srt"]("a.wav", transcript) is not None


def test_evaluate_notes_the_language_and_its_normaliser(checkpoint, tmp_path):
    speech = write_speech_folder(tmp_path / "speech", [0.5], ["नमस्ते"])
    settings = evaluate(checkpoint, speech, language="hi", show_progress=False)["settings"]
    assert (settings["language"], settings["normalizer"]) == ("hi", "basic")
    assert evaluate(checkpoint, speech, show_progress=False)["settings"]["normalizer"] == "basic"


def test_distill_makes_a_student_that_knows_its_language(checkpoint, tmp_path):
    speech = write_speech_folder(tmp_path / "speech", [0.5, 0.6], ["नमस्ते", "हाँ"])
    arguments = ASKDTrainingArguments(
        str(tmp_path / "out"), max_steps=1, per_device_train_batch_size=2, use_cpu=True, save_strategy="no"
    )
    report = distill(checkpoint, speech, arguments, decoder_layers=1, language="hi")
    model, processor = load_checkpoint(str(report.folder), "cpu")
    assert model.generation_config.lang_to_id["<|hi|>"] == 50276
    (transcript,) = generate_transcripts(model, processor, [noise(1.0)])
    assert transcript.language == "hi"
