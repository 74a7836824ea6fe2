"""Features window by window are those of WhisperFeatureExtractor at once; an hour needs little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from transformers import WhisperFeatureExtractor, WhisperTokenizer

import fastwhisper
from fastwhisper.data.audio import load_audio
from fastwhisper.data.stored_audio import StoredSamples, store_audio
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.recording_features import RecordingFeatures
from fastwhisper.transcription.token_kinds import TokenKinds

from ..recordings import noise, tiny_processor, write_only_words
from ..tiny_models import tiny_whisper

ONE_MINUTE = 60 * 16_000
QUARTER_HOUR = """
import sys
from pathlib import Path
from fastwhisper import transcribe
from fastwhisper.evaluation.measurement import resident_growth
from tests.transcription.test_recording_features import small_pair
pair = small_pair()
transcribe(sys.argv[1], pair, temperatures=(0.0,)).text
print(resident_growth(lambda: transcribe(sys.argv[2], pair, temperatures=(0.0,)).text))
"""


def stock_features(samples: np.ndarray, extractor: WhisperFeatureExtractor) -> torch.Tensor:
    """`(mel, frames)` of samples that fill their last frame, or of what it pads them to."""
    arguments = {"padding": "longest", "truncation": False, "return_tensors": "pt"}
    return extractor(samples, sampling_rate=16_000, **arguments).input_features[0]


def uneven_noise(count: int) -> np.ndarray:
    """A click at the end is 80 dB above much of the rest, and decides what is left of the features of all windows."""
    samples = np.resize(noise(7.0), count) * np.float32(1e-2)
    samples[-90:] = 0.9
    return samples


@pytest.mark.parametrize("bins", [80, 128])
@pytest.mark.parametrize("count", [ONE_MINUTE, ONE_MINUTE + 320, 30 * 16_000 + 320, ONE_MINUTE + 1, ONE_MINUTE + 459])
def test_windows_at_every_seek_are_those_at_once(bins, count):
    extractor = WhisperFeatureExtractor(feature_size=bins)
    samples = uneven_noise(count)
    # Whole pairs of frames.
    expected = stock_features(np.pad(samples, (0, -count % 320)), extractor)
    features = RecordingFeatures(samples, extractor)
    frames = features.frames
    assert expected.shape == (bins, frames)
    # 80 dB below the click: much of a window is flat.
    assert 0.1 < (features.window(0, 3000) == expected.min()).float().mean() < 0.99
    for start in (0, 1, 2, 3, 1777, 2999, frames - 3000, frames - 2, frames - 1):
        for length in (1, 2, 3, 1000, 3000):
            window = features.window(start, length)
            assert window.shape == (bins, min(length, frames - start))
            torch.testing.assert_close(window, expected[:, start : start + length], rtol=0, atol=1e-5)
            assert torch.equal(window, features.window(start, length))


@pytest.mark.parametrize("sampling_rate", [8_000, 16_000, 44_100])
def test_a_stored_file_has_the_features_of_its_samples(tmp_path, sampling_rate):
    soundfile.write(tmp_path / "a.flac", np.resize(noise(9.0), 75 * sampling_rate), sampling_rate)
    extractor = WhisperFeatureExtractor()
    expected = stock_features(load_audio(tmp_path / "a.flac"), extractor)
    stored = store_audio(tmp_path / "a.flac")
    features = RecordingFeatures(stored, extractor)
    assert isinstance(stored, StoredSamples) and features.frames == expected.shape[1] == 7_500
    found = torch.cat([features.window(start, 999) for start in range(0, 7_500, 999)], dim=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("seconds", [0.01, 1.31, 2.0])
def test_a_short_recording_is_left_to_the_extractor(seconds):
    extractor = WhisperFeatureExtractor(chunk_length=2)
    samples = noise(seconds)
    features = RecordingFeatures(samples, extractor)
    expected = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]
    assert torch.equal(features.window(0, 200), expected)
    assert features.frames == 2 * max(1, int(np.ceil(50 * seconds)))


def test_silence_and_added_noise():
    silence = np.zeros(5 * 16_000, np.float32)
    extractor = WhisperFeatureExtractor(chunk_length=2)
    expected = stock_features(silence, extractor)
    torch.testing.assert_close(RecordingFeatures(silence, extractor).window(0, 500), expected, rtol=0, atol=1e-5)
    dithering = RecordingFeatures(silence, WhisperFeatureExtractor(chunk_length=2, dither=1e-3))
    assert dithering.window(0, 500).std() > 0.01
    assert torch.equal(dithering.window(0, 500)[:, 100:200], dithering.window(100, 100))


def expected_texts(model, processor, samples: np.ndarray, **prompt) -> list[str]:
    """What `generate` says of all features at once."""
    features = stock_features(np.pad(samples, (0, -len(samples) % 320)), processor.feature_extractor)
    segments = model.generate(
        features[None],
        return_timestamps=True,
        return_segments=True,
        temperature=0.0,
        **prompt,
        condition_on_prev_tokens=False,
        no_speech_threshold=0.6,
        logprob_threshold=-1.0,
        compression_ratio_threshold=1.35,
    )["segments"][0]
    texts = [TokenKinds(processor.tokenizer).text(segment["tokens"].tolist()) for segment in segments]
    return [text for text in texts if text]


def test_a_long_file_says_what_generate_says_of_it_at_once(demo_tokenizer, tmp_path):
    model, processor = (
        tiny_whisper(demo_tokenizer, max_target_positions=16, init_std=0.5),
        tiny_processor(demo_tokenizer),
    )
    write_only_words(model, demo_tokenizer)
    late = range(demo_tokenizer.convert_tokens_to_ids("<|2.02|>"), len(demo_tokenizer))
    model.generation_config.suppress_tokens += list(late)
    soundfile.write(tmp_path / "a.flac", noise(70.0, 5), 16_000)
    speech = fastwhisper.transcribe(tmp_path / "a.flac", (model, processor), temperatures=(0.0,), language="en")
    assert isinstance(store_audio(tmp_path / "a.flac"), StoredSamples)
    expected = expected_texts(model, processor, load_audio(tmp_path / "a.flac"), language="en")
    assert len(set(expected)) > 10 and [segment.text for segment in speech.segments] == expected


def test_three_minutes_of_real_speech(real_model, real_speech, tmp_path):
    files = sorted((real_speech("librispeech_dev_clean") / "audio").glob("*.opus"))
    samples = np.concatenate([load_audio(file) for file in files[:40]])[: 180 * 16_000 + 77]
    soundfile.write(tmp_path / "a.flac", samples, 16_000)
    model, processor = load_checkpoint(str(real_model("whisper-tiny.en")), "cpu")
    speech = fastwhisper.transcribe(tmp_path / "a.flac", (model, processor), temperatures=(0.0,))
    expected = expected_texts(model, processor, load_audio(tmp_path / "a.flac"))
    assert speech.duration > 180 and len(speech.text) > 1_500
    assert [segment.text for segment in speech.segments] == expected


def small_pair():
    """A window of 30 s of 80 mel bins, as in every Whisper, and next to nothing behind it."""
    tokenizer: WhisperTokenizer = build_demo_tokenizer()
    model = tiny_whisper(tokenizer, 30, 1, 1, d_model=16, max_target_positions=6)
    # Without times a window moves on by all of its length.
    write_only_words(model, tokenizer)
    return model, tiny_processor(tokenizer, 30)


def test_a_long_recording_takes_no_more_memory_than_a_short_one(tmp_path):
    """A quarter of an hour has 87 MB of samples and features, and took 500 MB (`benchmarks/hour_memory.py`)."""
    for name, minutes in (("short", 2), ("long", 15)):
        soundfile.write(tmp_path / f"{name}.flac", np.resize(noise(60.0), minutes * ONE_MINUTE), 16_000)
    files = [tmp_path / "short.flac", tmp_path / "long.flac"]
    command = [sys.executable, "-c", QUARTER_HOUR, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert int(done.stdout.splitlines()[-1]) < 40e6
