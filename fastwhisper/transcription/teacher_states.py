"""What a teacher makes of a row, computed once: its last decoder states, from which its output layer gives what it
predicts, and its encoder's states."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import WhisperFeatureExtractor

from ..data.collator import IGNORED
from ..data.row_store import RowStore, content_key
from ..data.stored_states import StoredStates, extractor_key
from ..errors import InputError
from .checkpoints import DTYPES
from .lazy_whisper import LazyWhisper


@dataclass(frozen=True)
class TeacherStates:
    r"""The states of a teacher: the last of its decoder at the label tokens of rows, and those of its encoder over the
    speech. They are read where they are kept, or else computed.

    Args:
        teacher (`LazyWhisper`): not loaded before a row lacks its states.
        stored (`StoredStates`): where those of the decoder are kept.
        encoder (`StoredStates`): where those of the encoder are kept.
    """

    teacher: LazyWhisper
    stored: StoredStates
    encoder: StoredStates

    @classmethod
    def of(
        cls, teacher: LazyWhisper, store: RowStore, extractor: WhisperFeatureExtractor, dtype: torch.dtype
    ) -> "TeacherStates":
        """Those of a teacher that hears what a feature extractor makes of the audio, kept in a precision."""
        stored = [
            StoredStates(
                store, content_key(part, teacher.fingerprint, extractor_key(extractor)), teacher.config.d_model, dtype
            )
            for part in ("teacher", "teacher's encoder")
        ]
        return cls(teacher, *stored)

    def compute(
        self,
        keys: Sequence[str],
        encoded: torch.Tensor,
        decoder_input_ids: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Run the teacher's decoder on rows, and keep its last states.

        Args:
            keys (`Sequence[str]`): of the rows, by `row_key`.
            encoded (`torch.Tensor`): `(batch, positions, hidden)`, what the teacher's encoder makes of the window.
            decoder_input_ids (`torch.Tensor`): `(batch, tokens)`.
            targets (`torch.Tensor`): `(batch, tokens)`, true where the label is not masked.

        Returns:
            `torch.Tensor`: `(target tokens, hidden)` of the rows, one after another, in the store's precision.

        Raises:
            InputError: if the disk does not take them.
        """
        states = self.teacher.last_states(encoded, decoder_input_ids, targets)
        return self.stored.write_all(keys, states.split(targets.sum(1).tolist()))


def row_key(stored: StoredStates, heard: str, decoder_input_ids: torch.Tensor, labels: torch.Tensor) -> str:
    """The key of a row's states: what is heard, and the tokens `(tokens,)` that go in and come out."""
    return stored.key(heard, str(decoder_input_ids.tolist()), str(labels.tolist()))


def target_tokens(labels: torch.Tensor) -> int:
    """Label tokens of a row that are learnt."""
    return int(labels.ne(IGNORED).sum())


def check_cache_dtype(name: str) -> None:
    """Check that states can be kept in a precision.

    Raises:
        InputError: if there is no such precision.
    """
    if name not in DTYPES:
        raise InputError(f"there is no cache_dtype {name!r}; choose one of {', '.join(DTYPES)}")
