"""Features at true length are the stock extractor's of the window, cut; continued, they are the window."""

import numpy as np
import pytest
import torch
from transformers import WhisperFeatureExtractor

from fastwhisper.data.collator import SpeechCollator
from fastwhisper.data.true_length_features import features_at_context, pad_to_window
from fastwhisper.errors import InputError

from ..sounds import tone
from ..whisper_assets import whisper_processor

WINDOW = 30


@pytest.fixture(scope="module")
def processor():
    return whisper_processor(seconds=WINDOW)


@pytest.fixture(scope="module")
def stock():
    """Features of a clip as a plain Whisper hears it."""
    extractor = WhisperFeatureExtractor()
    return lambda samples: extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features[0]


def noise(samples, seed=0):
    """Loud to its last sample: an edge that is heard wrongly shows."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, samples).astype(np.float32)


def context_of(samples, margin):
    """In samples and seconds, not frames: the shortest whole number of seconds that holds the clip and the margin."""
    hops = -(-samples // 160)
    return next((second for second in range(1, WINDOW) if second * 100 >= hops + margin * 100), WINDOW)


# The last clip that a context holds, and the first that it does not; then those that fill the window.
EDGES = [16_000 * second - shift for second in range(1, WINDOW + 1) for shift in (8_001, 8_000, 7_999, 1, 0, -1)]
EDGES = [samples for samples in [320, 1_000, *EDGES] if samples <= 16_000 * WINDOW + 160]


@pytest.mark.parametrize("margin", [0.5, 0, 0.02])
def test_every_context_is_the_window_cut(processor, stock, margin):
    for samples in EDGES[:: 1 if margin == 0.5 else 4]:
        clip = noise(samples)
        batch = features_at_context([clip], [False], margin, processor.feature_extractor)
        context = int(batch["context_frames"])
        assert context == 100 * context_of(min(samples, 16_000 * WINDOW), margin), samples
        assert int(batch["audio_frames"]) == min(-(-samples // 160), 3_000)
        features, expected = batch["input_features"][0], stock(clip)
        assert context <= features.shape[1] <= min(context + 4, 3_000) and features.shape[1] % 2 == 0
        torch.testing.assert_close(features[:, :context], expected[:, :context], rtol=0, atol=1e-6)
        torch.testing.assert_close(pad_to_window(features, 3_000), expected, rtol=0, atol=1e-6)
        if margin == 0.5:
            assert features.shape[1] == context


def test_rows_of_a_batch_are_those_that_they_are_alone(processor, stock):
    """Lengths of 1 to 20 s, one of them heard in the whole window, one prepared."""
    clips = [noise(16_000 * seconds, seconds) for seconds in (1, 3, 20)]
    quiet = 1e-3 * noise(32_000, 7)
    rows = [*clips, stock(quiet)]
    batch = features_at_context(rows, [False, True, False, False], 0.5, processor.feature_extractor)
    assert batch["context_frames"].tolist() == [200, 3_000, 2_100, 300]
    for features, clip in zip(batch["input_features"], [*clips, quiet], strict=True):
        torch.testing.assert_close(features, stock(clip), rtol=0, atol=1e-6)


def test_silence_has_a_context(processor, stock):
    silence = np.zeros(16_000, dtype=np.float32)
    batch = features_at_context([silence, stock(silence)], [False, False], 0.5, processor.feature_extractor)
    assert batch["context_frames"].tolist() == [200, 100]  # nothing tells silence from padding in prepared features
    torch.testing.assert_close(pad_to_window(batch["input_features"][0], 3_000), stock(silence))


def test_prepared_features_that_are_not_a_window_are_refused(processor):
    with pytest.raises(InputError, match=r"shape \(80, 200\).*\(80, 3000\)"):
        features_at_context([torch.zeros(80, 200)], [False], 0.5, processor.feature_extractor)


def row(seconds, **columns):
    return {"audio": {"array": tone(seconds), "sampling_rate": 16_000}, "text": f"{seconds}", **columns}


def test_without_true_length_nothing_changes(processor, stock):
    rows = [row(0.7), row(2.0, full_length=True)]
    batch = SpeechCollator(processor, language="en")(rows)
    assert set(batch) == {"input_features", "labels"}
    expected = WhisperFeatureExtractor()(
        [r["audio"]["array"] for r in rows], sampling_rate=16_000, return_tensors="pt"
    )
    assert batch["input_features"].equal(expected.input_features)
    cut = SpeechCollator(processor, language="en", true_length=True, full_length_probability=0.0)(rows)
    assert cut["labels"].equal(batch["labels"]) and cut["context_frames"].tolist() == [200, 3_000]


def test_the_collator_draws_full_length_by_row_and_seed(processor):
    rows = [row(0.5 + index / 1000) for index in range(60)]
    prepared = [{"input_features": np.random.default_rng(i).normal(size=(80, 3_000)), "labels": [1]} for i in range(4)]

    def drawn(rows, probability=0.5, seed=0):
        collator = SpeechCollator(
            processor, language="en", true_length=True, full_length_probability=probability, seed=seed
        )
        return [collator._is_full_length(row) for row in rows]

    assert not any(drawn(rows, 0.0)) and all(drawn(rows, 1.0))
    assert 15 < sum(drawn(rows)) < 45
    assert drawn(rows) == drawn(rows[::-1])[::-1] != drawn(rows, seed=1)
    assert any(drawn(prepared * 1, seed=seed) != drawn(prepared[:1] * 4, seed=seed) for seed in range(9))


def test_a_share_that_is_none_is_refused(processor):
    with pytest.raises(InputError, match="full_length_probability=1.5"):
        SpeechCollator(processor, full_length_probability=1.5)
