"""Rooms around a speaker: what they add to the sound by their walls."""

import numpy as np

from ..modeling.waveforms import SAMPLING_RATE

REVERBERATION_SECONDS = (0.15, 0.45)
DIRECT_TO_REVERBERANT_DB = (10.0, 25.0)


def reverberate(samples: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The samples in a room with a random reverberation time and distance, as long and as loud as before.

    The room's response is the direct sound and noise that falls by 60 dB within the reverberation time.

    Args:
        samples (`np.ndarray`): `(samples,)` at 16 kHz.
        generator (`np.random.Generator`): draws the room.
    """
    seconds = generator.uniform(*REVERBERATION_SECONDS)
    times = np.arange(round(seconds * SAMPLING_RATE)) / SAMPLING_RATE
    tail = generator.standard_normal(times.size) * 10 ** (-3 * times / seconds)
    tail *= 10 ** (-generator.uniform(*DIRECT_TO_REVERBERANT_DB) / 20) / np.linalg.norm(tail)
    tail[0] += 1.0
    length = 1 << (samples.size + tail.size).bit_length()  # what a Fourier transform is quick at
    heard = np.fft.irfft(np.fft.rfft(samples, length) * np.fft.rfft(tail, length), length)[: samples.size]
    power, heard_power = np.sum(np.square(samples, dtype=np.float64)), np.sum(np.square(heard))
    return (heard * np.sqrt(power / heard_power)).astype(np.float32)
