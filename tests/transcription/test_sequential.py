"""Windows that move along their times: as `generate` for one clip, and in batches as one by one."""

import copy

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, WhisperTimeStampLogitsProcessor

from fastwhisper.transcription import sequential
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions, generate_transcripts
from fastwhisper.transcription.token_kinds import TimestampRules, TokenKinds, pieces

from ..recordings import noise, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper
from ..whisper_assets import whisper_tokenizer

THRESHOLDS = {"compression_ratio_threshold": 1.35, "logprob_threshold": -1.0, "no_speech_threshold": 0.6}
CLIPS = [noise(seconds, seed) for seed, seconds in enumerate((0.4, 1.9, 1.31, 4.1, 0.7, 2.72))]


@pytest.fixture(scope="module")
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer)


@pytest.fixture(scope="module")
def model(processor):
    """Sure of itself in some windows and not in others; it knows no times beyond its window of 2 s."""
    tokenizer = processor.tokenizer
    model = tiny_whisper(tokenizer, max_target_positions=24, init_std=0.5)
    write_only_words(model, tokenizer)
    late = range(tokenizer.convert_tokens_to_ids("<|2.02|>"), len(tokenizer))
    model.generation_config.suppress_tokens += list(late)
    return model


def tried(monkeypatch) -> list[tuple[float, int]]:
    """Temperature, and number of windows, of each call that decodes."""
    calls = []
    generate = sequential.SequentialDecoder._generate

    def spy(decoder, encoded, clips, temperature):
        calls.append((temperature, len(clips)))
        return generate(decoder, encoded, clips, temperature)

    monkeypatch.setattr(sequential.SequentialDecoder, "_generate", spy)
    return calls


@pytest.mark.parametrize("temperatures, beams", [((0.0,), 1), ((0.0,), 3), ((0.0, 0.4, 1.0), 1), ((0.7,), 1)])
@pytest.mark.parametrize("seconds", [3.3, 7.0])
def test_a_clip_says_what_generate_says(model, processor, temperatures, beams, seconds):
    clip = noise(seconds, 11)
    features = processor(clip, sampling_rate=16_000, truncation=False, padding=False, return_tensors="pt")
    torch.manual_seed(3)
    expected = model.generate(
        features.input_features[..., : round(100 * seconds)],
        return_timestamps=True,
        return_segments=True,
        temperature=temperatures,
        condition_on_prev_tokens=False,
        num_beams=beams,
        language="en",
        **THRESHOLDS,
    )["segments"][0]
    options = GenerationOptions(timestamps=True, temperatures=temperatures, num_beams=beams, seed=3)
    transcript = generate_transcripts(model, processor, [clip], options)[0]
    kinds = TokenKinds(processor.tokenizer)
    texts = [kinds.text(segment["tokens"].tolist()) for segment in expected]
    assert [segment.text for segment in transcript.segments] == [text for text in texts if text]
    assert len(transcript.segments) > 1
    assert transcript.text == kinds.text(torch.cat([segment["tokens"] for segment in expected]).tolist())


@pytest.mark.parametrize("beams", [1, 2])
def test_a_batch_with_words_and_fallback_equals_one_by_one(model, processor, monkeypatch, beams):
    calls = tried(monkeypatch)
    options = GenerationOptions(word_timestamps=True, num_beams=beams)
    together = generate_transcripts(model, processor, CLIPS, options)
    again = sum(size for temperature, size in calls if temperature == 0.2)
    assert calls[0] == (0.0, len(CLIPS)) and 0 < again < sum(size for temperature, size in calls if temperature == 0)
    assert together == [generate_transcripts(model, processor, [clip], options)[0] for clip in CLIPS]
    assert all(any(segment.words for segment in transcript.segments) for transcript in together)


def test_real_digits_in_a_batch_have_the_words_of_one_by_one():
    folder = real_model("whisper-tiny.en")
    files = sorted((real_speech("fsdd") / "recordings").glob("*_jackson_0.wav"))[:5]
    model, processor = load_checkpoint(str(folder), "cpu")
    clips = [load_audio(file) for file in files]
    options = GenerationOptions(word_timestamps=True)
    together = generate_transcripts(model, processor, clips, options)
    assert together == [generate_transcripts(model, processor, [clip], options)[0] for clip in clips]
    assert all(transcript.segments[0].words for transcript in together)


@pytest.mark.parametrize("beams", [1, 3])
def test_word_times_are_those_of_openai(monkeypatch, beams):
    """On random weights, in a batch; openai's decoder knows one tokenizer."""
    tokenizer = whisper_tokenizer()
    model = tiny_whisper(tokenizer, init_std=0.5, max_target_positions=48)
    texts = [" turn on the lamp", " no", " it is 今日 a good night, is it not?"]
    check_word_times(monkeypatch, model, tokenizer, [noise(s, 7) for s in (1.9, 0.5, 1.2)], texts)


def test_word_times_are_those_of_openai_on_real_speech(monkeypatch):
    model, processor = load_checkpoint(str(real_model("whisper-base")), "cpu")
    files = sorted((real_speech("kathleen_arctic") / "flac").glob("*.flac"))[:2]
    clips = [load_audio(file)[:80_000] for file in files]
    texts = [" Author of the danger trail, Philip Steels, etc.", " Not at this particular case, Tom, apologized."]
    check_word_times(monkeypatch, model, processor.tokenizer, clips, texts)
