"""A collator that reads what is kept of its rows, and makes features only for batches that need them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from ..data.collator import SpeechCollator
from ..data.stored_states import StoredStates, heard_key
from ..transcription.teacher_states import row_key, target_tokens
from .encoder_distance import AUDIO_FRAMES, speech_positions

CACHED = "cached"  # in a batch, beside its tensors


@dataclass(frozen=True)
class Found:
    """The keys of the rows of a batch, and what is kept of them.

    Args:
        keys (`list[str]`): one a row.
        present (`list[bool]`): whether the row's states are there.
        states (`torch.Tensor`): `(positions, hidden)` of the rows that are there, one after another.
        lengths (`list[int]`): positions of every row.
        damaged (`int`): rows whose entry was damaged.
    """

    keys: list[str]
    present: list[bool]
    states: torch.Tensor
    lengths: list[int]
    damaged: int


class CachedRows:
    r"""Adds to each batch what the caches hold of its rows: `cached`, a dict of `teacher`, `teacher_encoder` and
    `encoder`, each `vars` of a `Found`.

    It runs in the processes of a data loader, too: it holds neither model.

    Args:
        collate (`SpeechCollator`): makes the batches.
        teacher (`StoredStates`, *optional*): the teacher's last decoder states.
        encoder (`StoredStates`, *optional*): the output of the student's encoder.
        teacher_encoder (`StoredStates`, *optional*): the teacher's encoder states over the speech, for which the
            collator's batches have `audio_frames`.
    """

    def __init__(
        self,
        collate: SpeechCollator,
        teacher: StoredStates | None,
        encoder: StoredStates | None,
        teacher_encoder: StoredStates | None = None,
    ) -> None:
        self._collate = collate
        self._deaf = replace(collate, hears=False)
        self._teacher = teacher
        self._encoder = encoder
        self._teacher_encoder = teacher_encoder
        # In memory that the processes of a data loader share: they do not see attributes that change later.
        self._teacher_is_wanted = torch.ones((), dtype=torch.bool).share_memory_()

    def want_teacher(self, wanted: bool) -> None:
        """Whether to read the teacher's states from now on."""
        self._teacher_is_wanted.fill_(wanted)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        cached: dict[str, Any] = {}
        heard = [heard_key(row) for row in rows]
        if self._teacher is not None and self._teacher_is_wanted:
            sequences = [self._collate.decoder_sequences(row) for row in rows]
            keys = [row_key(self._teacher, *parts) for parts in zip(heard, *zip(*sequences, strict=True), strict=True)]
            cached["teacher"] = vars(_find(self._teacher, keys, [target_tokens(labels) for _, labels in sequences]))
        if self._encoder is not None:
            lengths = [frames // 2 for frames in self._collate.contexts(rows)]
            cached["encoder"] = vars(self._encoded(self._encoder, heard, lengths))
        # The student hears, unless its encoder's output is there; the teacher, where its states are not. Encoders are
        # compared only while the student's is trained.
        hear = "encoder" not in cached or not all(cached["encoder"]["present"])
        hear = hear or not all(cached.get("teacher", {}).get("present", []))
        batch: dict[str, Any] = (self._collate if hear else self._deaf)(rows)
        if self._teacher_encoder is not None:
            lengths = speech_positions(batch[AUDIO_FRAMES]).tolist()
            cached["teacher_encoder"] = vars(self._encoded(self._teacher_encoder, heard, lengths))
        return {**batch, CACHED: cached}

    def _encoded(self, stored: StoredStates, heard: list[str], lengths: list[int]) -> Found:
        keys = [encoder_key(stored, name, length) for name, length in zip(heard, lengths, strict=True)]
        return _find(stored, keys, lengths)


def encoder_key(stored: StoredStates, heard: str, positions: int) -> str:
    """The key of an encoder's output for what is heard, of some positions: a context, or the speech."""
    return stored.key(heard, str(positions))


def _find(stored: StoredStates, keys: list[str], lengths: list[int]) -> Found:
    before = stored.store.damaged
    read = [stored.read(key, length) for key, length in zip(keys, lengths, strict=True)]
    there = [states for states in read if states is not None]
    states = torch.cat(there) if there else torch.zeros(0, stored.hidden, dtype=stored.dtype)
    present = [one is not None for one in read]
    return Found(keys, present, states, lengths, stored.store.damaged - before)
