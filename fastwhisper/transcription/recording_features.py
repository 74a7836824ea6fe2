"""Whisper's log-mel features of a recording, window by window: those of an hour at once take over a gigabyte.

Whisper clips its features at 80 dB below the loudest of the whole recording, so all of it is looked through first.
"""

import math
from typing import Any

import numpy as np
import torch
from torch.nn.functional import pad
from transformers import WhisperFeatureExtractor

from ..data.stored_audio import Clip
from ..data.true_length_features import clip_features, computed_frames
from ..modeling.waveforms import SAMPLING_RATE

# What `WhisperFeatureExtractor` has as numbers in its code: powers below count as this, and the range in decades.
_LEAST_POWER = 1e-10
_DECADES = 8.0


def context_features(samples: Clip, extractor: WhisperFeatureExtractor, context: int) -> torch.Tensor:
    """The first `context` frames `(mel, context)` of the features that the extractor computes of a clip, extended to
    its window."""
    return clip_features([samples[:]], context, extractor)[0]


class RecordingFeatures:
    """The features of a recording of any length, computed where they are read.

    They are those that the extractor computes at once, up to the rounding of float32. A recording that fits the
    model's window is left to the extractor, and so is one whose extractor adds noise, which must stay the same.

    Args:
        samples (`np.ndarray` or `StoredSamples`): mono float samples at 16 kHz.
        extractor (`WhisperFeatureExtractor`): of the model.
        context (`int`, *optional*): frames that the model is given of the first window; silence extends the recording
            to them. All of the window by default.

    Attributes:
        frames (`int`): features of the recording itself. Even, since the encoder joins two: with a single frame left,
            words would be aligned with nothing.
    """

    def __init__(self, samples: Clip, extractor: WhisperFeatureExtractor, context: int | None = None) -> None:
        self.frames = 2 * max(1, -(-len(samples) // (2 * extractor.hop_length)))
        self._samples = samples
        self._extractor = extractor
        self._all_frames = max(self.frames, computed_frames(context or extractor.nb_max_frames, extractor))
        self._at_once: torch.Tensor | None = None
        if self._all_frames <= extractor.nb_max_frames or extractor.dither:
            self._at_once = extractor(
                samples[:],
                sampling_rate=SAMPLING_RATE,
                max_length=self._all_frames * extractor.hop_length,
                truncation=False,
                return_tensors="pt",
            ).input_features[0]
            return
        self._taper = torch.hann_window(extractor.n_fft)
        self._filters = torch.from_numpy(extractor.mel_filters).float().T
        step = extractor.nb_max_frames
        loudest = max(float(self._log_mel(start, start + step).max()) for start in range(0, self._all_frames, step))
        self._floor = loudest - _DECADES

    def window(self, start: int, length: int) -> torch.Tensor:
        """Features `(mel, length)` from a frame on; fewer where the recording, or its first window, ends."""
        if self._at_once is not None:
            return self._at_once[:, start : start + length]
        return _scaled(self._log_mel(start, start + length).clamp(min=self._floor))

    def padded_window(self, start: int, length: int) -> torch.Tensor:
        """Features `(mel, length)` from a frame on; those of silence where the recording ends."""
        found = self.window(start, length)
        return pad(found, (0, length - found.shape[-1]), value=self._silence)

    @property
    def _silence(self) -> float:
        """The features of silence: those of the least power, or as far below the loudest as any."""
        least = _scaled(math.log10(_LEAST_POWER))
        if self._at_once is None:
            return max(least, _scaled(self._floor))
        return max(least, float(self._at_once.max()) - _DECADES / 4.0)

    def _log_mel(self, start: int, end: int) -> torch.Tensor:
        size, hop = self._extractor.n_fft, self._extractor.hop_length
        first = start * hop - size // 2
        last = (min(end, self._all_frames) - 1) * hop - size // 2
        samples = torch.from_numpy(self._mirrored(first, last + size))
        spectrum = torch.stft(samples, size, hop, window=self._taper, center=False, return_complex=True)
        return (self._filters @ spectrum.abs().square()).clamp(min=_LEAST_POWER).log10()

    def _mirrored(self, begin: int, end: int) -> np.ndarray:
        """Samples that may lie before the start or behind the end: the recording is mirrored there."""
        total = self._all_frames * self._extractor.hop_length
        before, behind = max(0, -begin), max(0, end - total)
        parts = [
            self._extended(1, 1 + before)[::-1],
            self._extended(max(begin, 0), min(end, total)),
            self._extended(total - 1 - behind, total - 1)[::-1],
        ]
        return np.concatenate(parts)

    def _extended(self, begin: int, end: int) -> np.ndarray:
        """Samples of the recording and of the silence behind it."""
        part = self._samples[begin:end].astype(np.float32, copy=False)
        return np.pad(part, (0, end - begin - len(part)), constant_values=self._extractor.padding_value)


def _scaled(log_mel: Any) -> Any:
    """A logarithm of power, or a tensor of them, as a feature."""
    return (log_mel + 4.0) / 4.0
