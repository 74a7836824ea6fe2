"""Leave out the rows that cannot be trained on or transcribed, and say how many and why."""

import logging
from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeVar

from datasets import Dataset, IterableDataset
from transformers import WhisperProcessor

from ..errors import InputError
from .audio import check_audio
from .label_encoding import LabelEncoder

logger = logging.getLogger(__name__)

# Resampling may add a sample to audio that fills its window exactly.
WINDOW_TOLERANCE_SECONDS = 0.01

NO_TEXT = "without text"
EMPTY_AUDIO = "empty audio"

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def drop_unusable_rows(
    dataset: AnyDataset,
    processor: WhisperProcessor,
    max_target_positions: int = 448,
    *,
    language: str | None = None,
    task: str | None = None,
    training: bool = True,
) -> AnyDataset:
    r"""Drop rows with empty audio and, for training, without text, with more labels than the decoder takes, or with
    audio over the window; a warning counts them by reason.

    A map-style dataset is checked at once, by the headers of its audio files. A streamed one is checked as it goes;
    its running counts are logged when they double.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Rows with `audio` and, for training, `text`.
        processor (`WhisperProcessor`):
            Its window and its tokenizer.
        max_target_positions (`int`, *optional*, defaults to 448):
            Label tokens that the decoder takes.
        language (`str`, *optional*):
            Passed to [`LabelEncoder`].
        task (`str`, *optional*):
            Passed to [`LabelEncoder`].
        training (`bool`, *optional*, defaults to `True`):
            `False` keeps rows over the window and rows without text: for labelling and evaluation.

    Raises:
        InputError: for audio that cannot be read or has NaN samples, naming the row, and where no rows are left.
    """
    check = RowCheck(processor, max_target_positions, language=language, task=task, training=training)
    if isinstance(dataset, IterableDataset):
        return dataset.filter(StreamFilter(check))
    kept, dropped = [], Counter[str]()
    for index, row in enumerate(dataset):
        reason = check(row, f"row {index}")
        if reason is None:
            kept.append(index)
        else:
            dropped[reason] += 1
    if not kept:
        raise InputError(f"no rows left: {describe_drops(dropped, len(dataset))}")
    if dropped:
        logger.warning(describe_drops(dropped, len(dataset)))
        return dataset.select(kept)
    return dataset


class RowCheck:
    """Why a row cannot be used: a reason to drop it, or `None`. Arguments as in [`drop_unusable_rows`]."""

    def __init__(
        self,
        processor: WhisperProcessor,
        max_target_positions: int = 448,
        *,
        language: str | None = None,
        task: str | None = None,
        training: bool = True,
    ) -> None:
        self.encoder = LabelEncoder(processor.tokenizer, language, task)
        self.window = float(processor.feature_extractor.chunk_length)
        self.max_target_positions = max_target_positions
        self.training = training

    def __call__(self, row: Mapping[str, Any], place: str) -> str | None:
        """Check a row; errors begin with `place`.

        Raises:
            InputError: for audio that cannot be read or has NaN samples, and a language the tokenizer does not have.
        """
        try:
            return self._audio_reason(row) or (self._label_reason(row) if self.training else None)
        except InputError as error:
            raise InputError(f"{place}: {error}") from error

    def _audio_reason(self, row: Mapping[str, Any]) -> str | None:
        if row.get("input_features") is not None:
            return None
        seconds = check_audio(row["audio"])
        if seconds <= 0:
            return EMPTY_AUDIO
        if self.training and seconds > self.window + WINDOW_TOLERANCE_SECONDS:
            return f"audio over {self.window:g} s"
        return None

    def _label_reason(self, row: Mapping[str, Any]) -> str | None:
        labels = row.get("labels")
        if labels is None and row.get("text") is None:
            return NO_TEXT
        length = self.encoder.longest(row) if labels is None else len(labels)
        return f"over {self.max_target_positions} label tokens" if length > self.max_target_positions else None


class StreamFilter:
    """The predicate of a streamed filter: `seen` and `dropped` count the rows of this process."""

    def __init__(self, check: RowCheck) -> None:
        self.check = check
        self.seen = 0
        self.dropped: Counter[str] = Counter()

    def __call__(self, row: Mapping[str, Any]) -> bool:
        reason = self.check(row, f"row {self.seen} of the stream")
        self.seen += 1
        if reason is None:
            return True
        self.dropped[reason] += 1
        total = self.dropped.total()
        # Nobody says when a stream ends: doubling keeps the log short and never more than half behind.
        if total & (total - 1) == 0:
            logger.warning("so far, %s", describe_drops(self.dropped, self.seen))
        return False


def describe_drops(dropped: Counter[str], total: int) -> str:
    """Such as `3 of 10 rows dropped: 2 empty audio, 1 without text`."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return f"{dropped.total()} of {total} rows dropped: {reasons}"
