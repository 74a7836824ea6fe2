"""What a teacher says of a row, computed once: its last decoder states, from which its output layer gives the rest."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import WhisperFeatureExtractor

from ..data.collator import IGNORED
from ..data.row_store import RowStore, content_key
from ..data.stored_states import StoredStates, extractor_key
from .lazy_whisper import LazyWhisper


@dataclass(frozen=True)
class TeacherStates:
    r"""The last decoder states of a teacher at the label tokens of rows: read where they are kept, or else computed.

    Args:
        teacher (`LazyWhisper`): not loaded before a row lacks its states.
        stored (`StoredStates`): where they are kept.
    """

    teacher: LazyWhisper
    stored: StoredStates

    @classmethod
    def of(
        cls, teacher: LazyWhisper, store: RowStore, extractor: WhisperFeatureExtractor, dtype: torch.dtype
    ) -> "TeacherStates":
        """Those of a teacher that hears what a feature extractor makes of the audio, kept in a precision."""
        made_by = content_key("teacher", teacher.fingerprint, extractor_key(extractor))
        return cls(teacher, StoredStates(store, made_by, teacher.config.d_model, dtype))

    def compute(
        self,
        keys: Sequence[str],
        features: torch.Tensor,
        decoder_input_ids: torch.Tensor,
        targets: torch.Tensor,
    ) -> torch.Tensor:
        """Run the teacher on rows, and keep their states.

        Args:
            keys (`Sequence[str]`): of the rows, by `row_key`.
            features (`torch.Tensor`): `(batch, mel, frames)`, of a whole window.
            decoder_input_ids (`torch.Tensor`): `(batch, tokens)`.
            targets (`torch.Tensor`): `(batch, tokens)`, true where the label is not masked.

        Returns:
            `torch.Tensor`: `(target tokens, hidden)` of the rows, one after another, in the store's precision.

        Raises:
            InputError: if the disk does not take them.
        """
        states = self.teacher.last_states(features, decoder_input_ids, targets)
        rows = states.split(targets.sum(1).tolist())
        return torch.cat([self.stored.write(key, row) for key, row in zip(keys, rows, strict=True)])


def row_key(stored: StoredStates, heard: str, decoder_input_ids: torch.Tensor, labels: torch.Tensor) -> str:
    """The key of a row's states: what is heard, and the tokens `(tokens,)` that go in and come out."""
    return stored.key(heard, str(decoder_input_ids.tolist()), str(labels.tolist()))


def target_tokens(labels: torch.Tensor) -> int:
    """Label tokens of a row that are learnt."""
    return int(labels.ne(IGNORED).sum())
