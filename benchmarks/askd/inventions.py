"""Words that a model writes where nobody speaks: on silence, and on recordings of noise."""

from typing import Any

import numpy as np

from fastwhisper.data.audio import load_audio
from fastwhisper.modeling.waveforms import SAMPLING_RATE

from .config import Measuring
from .place import Place
from .speech_sets import Clip
from .splits import load_rows

WHITE_NOISE = 1e-3  # of full scale: -60 dB


def speechless_clips(measuring: Measuring, place: Place, language: str | None) -> dict[str, list[Clip]]:
    """Digital silence and faint white noise, and windows of noise, of the lengths asked for."""
    lengths = [round(SAMPLING_RATE * seconds) for seconds in measuring.silence_seconds]
    draws = np.random.default_rng(0)
    silence = [np.zeros(length, np.float32) for length in lengths]
    silence += [(WHITE_NOISE * draws.standard_normal(length)).astype(np.float32) for length in lengths]
    found = {"silence": [Clip.of_samples(samples, language) for samples in silence]}
    if measuring.noise is not None:
        rows: Any = load_rows(measuring.noise, place, require_text=False)
        windows = [
            window
            for samples in (load_audio(row["audio"]) for row in rows)
            for length in lengths
            for window in _windows(samples, length, measuring.noise_windows)
        ]
        found["noise"] = [Clip.of_samples(window, language) for window in windows]
    return found


def _windows(samples: np.ndarray, length: int, most: int) -> list[np.ndarray]:
    """Evenly spaced windows, as many as fit, at most `most`."""
    count = min(most, len(samples) // length)
    starts = [round(index * (len(samples) - length) / max(1, count - 1)) for index in range(count)]
    return [samples[start : start + length] for start in starts]
