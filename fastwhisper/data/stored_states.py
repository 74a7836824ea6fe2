"""Hidden states of rows, kept by what they were computed from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperFeatureExtractor

from .audio import audio_path, load_audio
from .row_store import RowStore, content_key, tensor_bytes

# In every key: raised where the same parts would stand for other states.
_FORM = "hidden states 1"
_STATES = "states"
_OVERHEAD = 136  # bytes of a file beside its states
# What of a feature extractor changes the features.
_EXTRACTOR = (
    *("feature_size", "sampling_rate", "n_fft", "hop_length", "chunk_length", "padding_value", "dither"),
    "do_normalize",
)


@dataclass(frozen=True)
class StoredStates:
    r"""Hidden states `(length, hidden)` of rows in a store.

    Args:
        store (`RowStore`): where they are.
        made_by (`str`): fingerprint of the weights and the feature extractor that they are computed with.
        hidden (`int`): their width.
        dtype (`torch.dtype`): the precision that they are kept in.
    """

    store: RowStore
    made_by: str
    hidden: int
    dtype: torch.dtype

    def key(self, *parts: str) -> str:
        """The key of a row, of all that its states depend on."""
        return content_key(_FORM, self.made_by, str(self.dtype), *parts)

    def read(self, key: str, length: int) -> torch.Tensor | None:
        """The states of a row, `(length, hidden)` in the store's precision; `None` if they are absent or damaged."""
        entry = self.store.get(key)
        if entry is None:
            return None
        states = entry.get(_STATES)
        if states is None or states.dtype != self.dtype or states.shape != (length, self.hidden):
            self.store.damaged += 1
            return None
        return states

    def write(self, key: str, states: torch.Tensor) -> torch.Tensor:
        """Keep the states `(length, hidden)` of a row; returns them as they will be read, on their device.

        Raises:
            InputError: if the disk does not take them.
        """
        kept = states.to(self.dtype)
        self.store.put(key, {_STATES: kept})
        return kept

    def write_all(self, keys: Sequence[str], rows: Iterable[torch.Tensor]) -> torch.Tensor:
        """As `write`, of several rows; their states one after another, `(positions, hidden)`."""
        return torch.cat([self.write(key, row) for key, row in zip(keys, rows, strict=True)])

    def bytes_of(self, length: int) -> int:
        """About how large the entry of a row becomes."""
        return length * self.hidden * self.dtype.itemsize + _OVERHEAD


def heard_key(row: Mapping[str, Any]) -> str:
    """A key of what a row sounds like: the content of its audio file, its samples, or its features.

    It does not depend on where a file is, nor on its name.

    Raises:
        InputError: for audio that is not there or cannot be read.
    """
    if row.get("input_features") is not None:
        features = torch.as_tensor(np.asarray(row["input_features"], dtype=np.float32))
        return content_key("features", tensor_bytes(features))
    audio: Any = row["audio"]
    path = audio_path(audio)
    if path is not None:
        return content_key("file", Path(path).read_bytes())
    content = audio.get("bytes") if isinstance(audio, Mapping) else audio
    if isinstance(content, bytes | bytearray | memoryview):
        return content_key("file", bytes(content))
    return content_key("samples", load_audio(audio).tobytes())


def extractor_key(extractor: WhisperFeatureExtractor) -> str:
    """A key of all settings of a feature extractor that change its features."""
    return content_key(*(f"{name}={getattr(extractor, name, None)}" for name in _EXTRACTOR))


def weights_key(weights: Mapping[str, torch.Tensor]) -> str:
    """A fingerprint of weights by name, wherever they are."""
    parts = [content_key(name, tensor_bytes(weights[name])) for name in sorted(weights)]
    return content_key(*parts)
