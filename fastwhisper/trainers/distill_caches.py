"""The caches of `distill`: what they are opened from, and what is told of them before and at the end."""

import logging
import os
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import IterableDataset
from torch import nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.collator import FULL_LENGTH, SpeechCollator
from ..data.row_store import RowStore, readable_size
from ..data.stored_states import StoredStates, heard_key
from ..errors import InputError
from ..progress import progress_bar
from ..transcription.checkpoints import DTYPES
from ..transcription.lazy_whisper import LazyWhisper
from ..transcription.teacher_states import TeacherStates, check_cache_dtype, row_key, target_tokens
from .askd_arguments import ASKDTrainingArguments
from .askd_caches import ASKDCaches, check_same_every_time, encoder_states
from .cached_rows import encoder_key
from .encoder_distance import speech_positions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheSettings:
    r"""Which caches a training reads and fills.

    Args:
        teacher (`str` or `os.PathLike`, *optional*): folder of the teacher's last decoder states.
        encoder (`str` or `os.PathLike`, *optional*): folder of the output of a frozen encoder.
        dtype (`str`, *optional*, defaults to `"float16"`): what both are kept in.

    Raises:
        InputError: for a precision that is none.
    """

    teacher: str | os.PathLike | None = None
    encoder: str | os.PathLike | None = None
    dtype: str = "float16"

    def __post_init__(self) -> None:
        check_cache_dtype(self.dtype)

    def check(self, arguments: ASKDTrainingArguments) -> None:
        """Check, before anything is loaded, that a training can have these caches.

        Raises:
            InputError: for the cache of an encoder that is trained.
        """
        if self.encoder is not None and not arguments.freeze_encoder:
            raise InputError(
                "--encoder_cache needs --freeze_encoder true: the output of an encoder in training changes"
            )

    def open(
        self,
        teacher: str | os.PathLike,
        teacher_dtype: str,
        teacher_model: WhisperForConditionalGeneration,
        student: nn.Module,
        processor: WhisperProcessor,
        trust_remote_code: bool = False,
    ) -> ASKDCaches:
        """Open the caches.

        Args:
            teacher (`str` or `os.PathLike`): its name or folder.
            teacher_dtype (`str`): the precision that it runs in.
            teacher_model (`WhisperForConditionalGeneration`): the teacher in that precision, or an outline of it.
            student (`nn.Module`): with its adapters.
            processor (`WhisperProcessor`): what makes the features of both.
            trust_remote_code (`bool`, *optional*, defaults to `False`): as for [`load_checkpoint`].

        Raises:
            InputError: for a folder that cannot be written in, and for a student that hears otherwise every time.
        """
        caches, extractor, dtype = ASKDCaches(), processor.feature_extractor, DTYPES[self.dtype]
        if self.encoder is not None:
            check_same_every_time(student, extractor)
            caches.encoder = encoder_states(student, RowStore(self.encoder), extractor, dtype)
        if self.teacher is not None:
            store = RowStore(self.teacher)
            lazy = LazyWhisper.of_checkpoint(teacher, teacher_dtype, trust_remote_code)
            if teacher_model.device.type != "meta":
                lazy.model = teacher_model.eval().requires_grad_(False)
            caches.teacher = TeacherStates.of(lazy, store, extractor, dtype)
        return caches


def tell_before(caches: ASKDCaches, rows: Any, collate: SpeechCollator, state: PartialState) -> None:
    """Look for the rows of a data set in the caches, on all processes together, and tell what is there and what is
    not. A teacher with nothing to do is let go. A stream is not looked through.

    Args:
        caches (`ASKDCaches`): the caches.
        rows (`Dataset` or `IterableDataset`): the training rows.
        collate (`SpeechCollator`): of the training rows; at true length an encoder needs a row in its own context, and
            where some rows are heard in a whole window, in that as well.
        state (`PartialState`): this process among those that share the rows.
    """
    if not caches or isinstance(rows, IterableDataset):
        return
    # By cache: rows that lack, and the bytes that they will take.
    lacking = {"teacher": [0, 0], "encoder": [0, 0], "teacher_encoder": [0, 0]}
    mine = range(state.process_index, len(rows), state.num_processes)
    with progress_bar(state.is_main_process) as bar:
        for index in bar.track(mine, description="looking into the caches"):
            row = rows[index]
            heard = heard_key(row)
            if caches.reads_teacher:
                stored = caches.teacher.stored  # type: ignore[union-attr]
                inputs, labels = collate.decoder_sequences(row)
                keys = {row_key(stored, heard, inputs, labels): target_tokens(labels)}
                _note(lacking["teacher"], stored, keys)
            if caches.encoder is not None:
                keys = {encoder_key(caches.encoder, heard, length): length for length in _lengths(collate, row)}
                _note(lacking["encoder"], caches.encoder, keys)
            if caches.compares_encoders:
                stored = caches.teacher.encoder  # type: ignore[union-attr]
                length = int(speech_positions(torch.tensor(collate.audio_frames(row))))
                _note(lacking["teacher_encoder"], stored, {encoder_key(stored, heard, length): length})
    found: list[dict[str, list[int]]] = gather_object([lacking])
    read = {name: stored for name, stored in caches.stored().items() if name != "teacher" or caches.reads_teacher}
    totals = {name: [sum(one[name][part] for one in found) for part in range(2)] for name in read}
    if not any(totals[name][0] for name in read if name != "encoder"):
        caches.let_teacher_go()
    if not state.is_main_process:
        return
    for name, stored in read.items():
        count, size = totals[name]
        expected = f"; the others will be computed, and take about {readable_size(size)}" if count else ""
        logger.warning("%s has %d of %d rows%s", _told(name, stored), len(rows) - count, len(rows), expected)


def told_after(caches: ASKDCaches) -> tuple[str, ...]:
    """A line for each cache: what all processes computed, and the size of the folder."""
    lines = []
    for name, stored in caches.stored().items():
        counts: list[Any] = gather_object([(caches.computed[name], caches.damaged[name])])
        computed, damaged = (sum(part) for part in zip(*counts, strict=True))
        anew = f", {damaged} of them as their entry was damaged" if damaged else ""
        entries, size = stored.store.size()
        lines.append(
            f"{_told(name, stored)}: {computed} rows computed{anew}; it has {entries} entries, {readable_size(size)}"
        )
    return tuple(lines)


def _told(name: str, stored: StoredStates) -> str:
    """A cache by its flag and folder."""
    flags = {"teacher": "teacher_cache", "encoder": "encoder_cache", "teacher_encoder": "teacher_cache"}
    what = " (encoder states)" if name == "teacher_encoder" else ""
    return f"{flags[name]} {stored.store.folder}{what}"


def _lengths(collate: SpeechCollator, row: dict[str, Any]) -> set[int]:
    """Positions of the encoder's outputs that the epochs of a training ask for."""
    heard_whole = [False] * (collate.full_length_probability < 1.0) + [True] * (collate.full_length_probability > 0.0)
    return {frames // 2 for whole in heard_whole for frames in collate.contexts([{**row, FULL_LENGTH: whole}])}


def _note(lacking: list[int], stored: StoredStates, keys: dict[str, int]) -> None:
    """Count a row, and the bytes of those of its states that are not there, by their keys and lengths."""
    missing = sum(stored.bytes_of(length) for key, length in keys.items() if key not in stored.store)
    lacking[0] += missing > 0
    lacking[1] += missing
