"""Training rows in batches of one length, in an order that depends on the seed and the epoch alone."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from transformers import WhisperFeatureExtractor

from ..data.audio import audio_duration
from ..data.collator import FULL_LENGTH, SpeechCollator
from ..data.true_length_features import prepared_frames, seconds_frames
from ..errors import InputError
from ..modeling.true_length_whisper import context_frames
from .askd_arguments import ASKDTrainingArguments

DrawnIndex = tuple[int, bool]  # a row, and whether it is heard in a whole window in this epoch


class DrawnRows(Dataset):
    """A dataset whose rows say whether they are heard in a whole window, as the index that asks for them does.

    Args:
        rows (`Dataset`): rows as mappings, by their numbers.
    """

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: DrawnIndex) -> dict[str, Any]:
        number, full_length = index
        return {**self.rows[number], FULL_LENGTH: full_length}


class TrueLengthSampler(Sampler[DrawnIndex]):
    r"""Every row once an epoch, in steps of rows of one context, with what is left over of each length at the end.

    Which rows are heard in a whole window depends on seed, epoch and row; order and steps also on the rows of a step.
    What is left of a context that no longer fills a step is joined, by length, into mixed steps among the others; a
    step that is not full comes last.

    Args:
        contexts (`Sequence[int]`): mel frames with which each row is heard.
        window (`int`): mel frames of the window.
        step_rows (`int`): rows of an optimiser step, over all processes and micro-batches: so the order does not
            depend on how they are split.
        full_length_probability (`float`): share of the rows that are heard in a whole window.
        seed (`int`): of draws and order.
    """

    def __init__(
        self, contexts: Sequence[int], window: int, step_rows: int, full_length_probability: float, seed: int
    ) -> None:
        self._contexts = np.asarray(contexts)
        self._window = window
        self._step_rows = step_rows
        self._probability = full_length_probability
        self._seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration is of."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._contexts)

    def __iter__(self) -> Iterator[DrawnIndex]:
        full_length = self._draws()
        for row in self._order(np.where(full_length, self._window, self._contexts)):
            yield int(row), bool(full_length[row])

    def _draws(self) -> np.ndarray:
        """Whether each row is heard in a whole window; the first n draws are those of a dataset of n rows."""
        return np.random.default_rng([self._seed, self.epoch]).random(len(self)) < self._probability

    def _order(self, heard: np.ndarray) -> np.ndarray:
        """The rows, given the mel frames that they are heard with."""
        shuffle = np.random.default_rng([self._seed, self.epoch, 1])
        rows = shuffle.permutation(len(self))
        steps, rest = [], []
        for context in np.unique(heard):
            same = rows[heard[rows] == context]
            whole = len(same) - len(same) % self._step_rows
            steps += [same[start : start + self._step_rows] for start in range(0, whole, self._step_rows)]
            rest.append(same[whole:])  # contexts rise: what is left is sorted by length
        mixed = np.concatenate(rest) if rest else rows
        whole = len(mixed) - len(mixed) % self._step_rows
        steps += [mixed[start : start + self._step_rows] for start in range(0, whole, self._step_rows)]
        order = [steps[number] for number in shuffle.permutation(len(steps))]
        return np.concatenate([*order, mixed[whole:]])


def cutting(collate: SpeechCollator, args: ASKDTrainingArguments) -> SpeechCollator:
    """The collator of training rows, from that of an evaluation, which gives whole windows and no lengths."""
    if not args.cuts_rows:
        return collate
    return replace(
        collate,
        true_length=True,
        true_length_margin=args.true_length_margin,
        full_length_probability=args.full_length_probability if args.true_length else 1.0,
    )


def grouped(
    rows: Any, seconds: Sequence[float | None] | None, collate: SpeechCollator, args: ASKDTrainingArguments
) -> TrueLengthSampler:
    """The sampler of a training; arguments as for `rows_audio_frames`."""
    extractor = collate.processor.feature_extractor
    window = extractor.nb_max_frames
    frames = rows_audio_frames(rows, seconds, extractor)
    return TrueLengthSampler(
        [context_frames(length, args.true_length_margin, window) for length in frames],
        window,
        args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        args.full_length_probability,
        args.seed if args.data_seed is None else args.data_seed,
    )


def rows_audio_frames(
    rows: Any, seconds: Sequence[float | None] | None, extractor: WhisperFeatureExtractor
) -> list[int]:
    """Mel frames of the audio of each row.

    Args:
        rows (`Dataset`): rows as mappings, by their numbers; read only where their seconds are not known.
        seconds (`Sequence[float | None]`, *optional*): as [`UsableRows`] has them.
        extractor (`WhisperFeatureExtractor`): the student's.

    Raises:
        InputError: if there are not as many seconds as rows, or for a row whose length cannot be found.
    """
    if seconds is None:
        seconds = [None] * len(rows)
    if len(seconds) != len(rows):
        raise InputError(f"train_seconds names {len(seconds)} lengths for {len(rows)} rows: give one of each row")
    return [
        _row_frames(rows[number], extractor) if known is None else seconds_frames(known, extractor)
        for number, known in enumerate(seconds)
    ]


def _row_frames(row: Mapping[str, Any], extractor: WhisperFeatureExtractor) -> int:
    features = row.get("input_features")
    if features is None:
        return seconds_frames(audio_duration(row["audio"]), extractor)
    return prepared_frames(torch.as_tensor(np.asarray(features, dtype=np.float32)), extractor)
