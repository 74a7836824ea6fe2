"""Samples of long recordings, kept in a temporary file in place of memory: an hour is 230 MB."""

import shutil
import tempfile
import weakref
from collections.abc import Iterable
from itertools import chain
from typing import TypeAlias

import numpy as np

from ..errors import InputError
from ..modeling.waveforms import SAMPLING_RATE
from .audio import AudioSource, describe_audio, empty_audio, resampled_blocks

# A minute and a bit: no clip that fits a model's window goes through a file.
_HELD_SAMPLES = 2**20
_ITEM = np.dtype(np.float32).itemsize


class StoredSamples:
    """Mono float32 samples in a temporary file without a name, which goes with this object or its process.

    `samples[start:stop]` reads an array of shape `(stop - start,)`, `samples[:]` all of it.
    """

    def __init__(self) -> None:
        # Without a buffer, which would be written once more, and fail once more, when the file is closed.
        self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
        self._length = 0
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> np.ndarray:
        start, stop, step = part.indices(self._length)
        if step != 1:
            raise ValueError("stored samples are read in order: the step of a slice must be 1")
        self._file.seek(_ITEM * start)
        return np.fromfile(self._file, np.float32, max(0, stop - start))

    def append(self, samples: np.ndarray) -> None:
        """Add float32 samples `(samples,)` behind those that are there.

        Raises:
            OSError: if the folder of temporary files has no room for them.
        """
        self._file.seek(_ITEM * self._length)
        left = np.ascontiguousarray(samples).data.cast("B")
        while left:
            left = left[self._file.write(left) :]
        self._length += len(samples)


Clip: TypeAlias = np.ndarray | StoredSamples


def store_audio(source: AudioSource) -> Clip:
    """As `load_audio`, at 16 kHz, for recordings of any length: those of more than a minute are stored.

    Raises:
        EmptyAudioError: for audio without samples; also an `InputError`.
        InputError: as `load_audio`, and for audio that the folder of temporary files has no room for.
    """
    blocks, held = resampled_blocks(source, SAMPLING_RATE), list[np.ndarray]()
    for samples in blocks:
        held.append(samples)
        if sum(map(len, held)) > _HELD_SAMPLES:
            return _stored(chain(held, blocks), describe_audio(source))
    if not any(map(len, held)):
        raise empty_audio(source, bool(held), SAMPLING_RATE)
    return np.concatenate(held)


def _stored(blocks: Iterable[np.ndarray], name: str) -> StoredSamples:
    stored, folder = StoredSamples(), tempfile.gettempdir()
    for samples in blocks:
        try:
            stored.append(samples)
            # Others need the disk, too.
            fits = _ITEM * len(stored) < shutil.disk_usage(folder).free
        except OSError:
            fits = False
        if not fits:
            raise InputError(
                f"{name} is too long for the folder of temporary files, {folder}: "
                f"{len(stored) / SAMPLING_RATE / 3600:.2f} hours of it are read, and there is more; cut it into "
                "parts, or set TMPDIR to a folder with more room"
            )
    return stored
