"""Turns samples of any kind into what every model here expects: mono, float32, full scale 1."""

from typing import Any

import numpy as np
import torch

# Hz, for every Whisper and so every FastSLM.
SAMPLING_RATE = 16_000

# 40 dB over full scale. Recordings in floats stay far below; integers that were only cast to floats do not, and quiet
# ones are known by being whole numbers.
LOUDEST = 100.0


def mono_samples(audio: Any, name: str = "the audio") -> np.ndarray:
    """Samples `(samples,)` in float32, full scale 1; channels, along the shorter axis, are averaged.

    Floats are taken as they are. Integers are scaled by what holds them: 8 and 16 bits by their type, unsigned ones
    around the middle of the range, as in WAV. Wide types are what lists of Python integers and careless casts
    arrive in, so there the values decide: 16, 24 or 32 bits, the least that holds them all, or unsigned 8 or 16
    bits if none is negative and all are around that middle.

    Args:
        audio (array, tensor or list): `(samples,)`, `(channels, samples)` or `(samples, channels)`; it may be empty.
        name (`str`, *optional*): Name for error messages.

    Raises:
        ValueError: for samples of another type or shape, or that are NaN, infinite or too loud to be audio.
    """
    samples = _as_array(audio, name)
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fiu":
        raise ValueError(
            f"{name} must be an array of samples or channels x samples, of floats or integers; it has {samples.ndim} "
            f"axes of {samples.dtype}"
        )
    if samples.size == 0:
        return np.zeros(0, np.float32)
    if samples.dtype.kind == "f":
        check_loudness(samples, name)
        samples = samples.astype(np.float32)
    else:
        middle, scale = _integer_scale(samples, name)
        samples = (samples.astype(np.float32) - np.float32(middle)) / np.float32(scale)
    if samples.ndim == 2:
        samples = samples.mean(axis=int(np.argmin(samples.shape)), dtype=np.float32)
    return samples


def _as_array(audio: Any, name: str) -> np.ndarray:
    if isinstance(audio, torch.Tensor):
        audio = audio.detach().cpu()
        # NumPy has no bfloat16.
        return (audio.float() if audio.is_floating_point() else audio).numpy()
    try:
        return np.asarray(audio)
    except ValueError as error:
        raise ValueError(f"{name} is not an array: {error}") from error


def check_loudness(samples: np.ndarray, name: str) -> None:
    """Check float samples of any shape.

    Raises:
        ValueError: for samples that are NaN or infinite, or too loud to be audio.
    """
    peak = float(np.maximum(samples.max(), -samples.min()))
    if not np.isfinite(peak):
        raise ValueError(f"{name} has samples that are NaN or infinite")
    if peak > LOUDEST or (peak > 1 and np.array_equal(samples, np.rint(samples))):
        raise ValueError(
            f"{name} has samples of {peak:.6g}, but float audio is between -1 and 1: scale them, or give integers "
            "as integers"
        )


def _integer_scale(samples: np.ndarray, name: str) -> tuple[int, int]:
    """The value of silence, and the distance from it to full scale."""
    bits = 8 * samples.dtype.itemsize
    if bits <= 16:
        return (0 if samples.dtype.kind == "i" else 2 ** (bits - 1)), 2 ** (bits - 1)
    low, high = int(samples.min()), int(samples.max())
    if samples.dtype.kind == "i" and low >= 0:
        for half in (2**7, 2**15):
            if high < 2 * half and abs(float(samples.mean(dtype=np.float64)) - half) <= half / 4:
                return half, half
    for half in (2**15, 2**23, 2**31):
        if samples.dtype.kind == "i" and -half <= low and high < half:
            return 0, half
    raise ValueError(f"{name} has {samples.dtype} samples from {low} to {high}, of unknown scale")
