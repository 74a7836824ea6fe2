"""Texts in capitals written as Whisper writes: fewer tokens, and words that its decoder knows."""

import logging
import re
from collections.abc import Mapping
from typing import Any

from datasets import Dataset, IterableDataset

from .label_encoding import TIMESTAMPED_COLUMNS
from .loading import SpeechDataset
from .timestamps import at_timestamps, has_timestamps

logger = logging.getLogger(__name__)

TEXT_CASES = ("as_is", "sentence")
_TEXT_COLUMNS = ("text", "previous_text", *TIMESTAMPED_COLUMNS)
_FIRST_PERSON = re.compile(r"\bi\b(?=$|[\s,.!?;:]|'(?:m|ve|ll|d)\b)")


def sentence_case(text: str) -> str:
    """A text in capitals as a sentence: `IT'S WHAT I MEAN` becomes `It's what I mean.`; any other as it is.

    Names and abbreviations lose their capitals: nothing tells them from other words. Segments with timestamps are
    sentences of their own.
    """
    if not in_capitals(text):
        return text
    if not has_timestamps(text):
        return _sentence(text)
    return "".join(piece if index % 2 else _sentence(piece) for index, piece in enumerate(at_timestamps(text)))


def in_capitals(text: Any) -> bool:
    """Whether a text has capital letters and no small ones."""
    return isinstance(text, str) and text.isupper()


def with_sentence_case(rows: SpeechDataset) -> SpeechDataset:
    """The rows with [`sentence_case`] in all columns of text."""
    if isinstance(rows, IterableDataset):
        return rows.map(_row_in_sentence_case, features=rows.features)
    # Not `map`, which would write the audio again.
    for column in (name for name in _TEXT_COLUMNS if name in rows.column_names):
        values = [sentence_case(text) if isinstance(text, str) else text for text in rows[column]]
        feature = rows.features[column]
        rows = rows.remove_columns(column).add_column(column, values, feature=feature)  # type: ignore[arg-type]
    return rows


def warn_of_capitals(rows: SpeechDataset) -> None:
    """Say that most texts of a dataset are in capitals, and what can be done; nothing of a stream."""
    if not isinstance(rows, Dataset):
        return
    texts = [text for text in rows["text"] if isinstance(text, str)]
    count = sum(map(in_capitals, texts))
    if 2 * count > len(texts):
        logger.warning(
            "%d of %d texts are in capitals, which Whisper seldom writes: --text_case sentence makes them sentences",
            count,
            len(texts),
        )


def _row_in_sentence_case(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: sentence_case(row[name]) for name in _TEXT_COLUMNS if isinstance(row.get(name), str)}


def _sentence(text: str) -> str:
    words = text.strip()
    if not words:
        return text
    before = text[: len(text) - len(text.lstrip())]
    small = re.sub(r"\w", lambda first: first[0].upper(), _FIRST_PERSON.sub("I", words.lower()), count=1)
    return f"{before}{small}{'.' if small[-1].isalnum() else ''}{text[len(text.rstrip()) :]}"
