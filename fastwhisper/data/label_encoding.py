"""Turns the text of a row into the token ids that a Whisper decoder is trained on."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from transformers import WhisperTokenizer

from ..errors import InputError
from .languages import SPACELESS_LANGUAGES, language_code
from .timestamps import at_timestamps, has_timestamps, timestamp_step, without_prompt, without_timestamps

TIMESTAMPED_COLUMNS = ("timestamped_text", "whisper_transcript")
# English-only Whispers have GPT-2's vocabulary, whose end of text is this id, and prompts without language and task.
_ENGLISH_ONLY_END = 50256


def prepared_labels(row: Mapping[str, Any]) -> list[int] | None:
    """Token ids that a row already has as `labels`; `None` without them, and for other values under that name."""
    labels = row.get("labels")
    if isinstance(labels, np.ndarray | torch.Tensor):
        labels = labels.tolist()
    if not isinstance(labels, list | tuple) or not all(type(label) is int for label in labels):
        return None
    return list(labels)


class LabelEncoder:
    r"""Token ids of a row: `WhisperTokenizer`'s own start tokens, the text, `<|endoftext|>`.

    Text is encoded with a leading space, as in OpenAI's training data: one is added if the text has none, except
    in languages written without spaces. Timestamps in a text are timestamps; anything else that looks like a control
    token, for example `<|endoftext|>`, is text.

    Args:
        tokenizer (`WhisperTokenizer`):
            Not changed.
        language (`str`, *optional*):
            What `language_code` understands, for all rows; by default each row's own `language`, then the
            tokenizer's setting.
        task (`str`, *optional*):
            `transcribe` or `translate`; the tokenizer's own setting by default.

    Raises:
        InputError: for a language or task that this tokenizer does not have.
    """

    def __init__(self, tokenizer: WhisperTokenizer, language: str | None = None, task: str | None = None) -> None:
        # `prefix_tokens` is computed from three attributes: a shallow copy has its own, but shares the vocabulary.
        self.tokenizer = copy.copy(tokenizer)
        self.given_language = language_code(language)
        self._default = language_code(tokenizer.language)
        self._task = task or tokenizer.task
        self._start_tokens: dict[tuple[str | None, bool], list[int]] = {}
        self.start_tokens(self.given_language or self._default, timestamps=False)

    def start_tokens(self, language: str | None, timestamps: bool) -> list[int]:
        """`<|startoftranscript|>`, language, task and, without `timestamps`, `<|notimestamps|>`, as ids.

        Raises:
            InputError: for a language or task that this tokenizer does not have.
        """
        code = language_code(language)
        key = (code, timestamps)
        if key not in self._start_tokens:
            named = self._named_in_prompt(code)
            self.tokenizer.language = code if named else None
            self.tokenizer.task = self._task if named else None
            self.tokenizer.predict_timestamps = timestamps
            try:
                ids = self.tokenizer.prefix_tokens
            except ValueError as error:
                raise InputError(str(error)) from error
            # The tokenizer counts language ids from the start token, even past its last language.
            if named and code and f"<|{code}|>" != self.tokenizer.convert_ids_to_tokens(ids[1]):
                raise InputError(f"the tokenizer has no language {code!r}")
            self._start_tokens[key] = ids
        return self._start_tokens[key]

    def _named_in_prompt(self, code: str | None) -> bool:
        if self.names_language:
            return True
        if self._task == "translate" or code not in (None, "en"):
            raise InputError(f"an English-only Whisper cannot {self._task or 'transcribe'} the language {code!r}")
        return False

    @property
    def names_language(self) -> bool:
        """Whether the prompt names the language; an English-only Whisper's does not."""
        return self.tokenizer.eos_token_id != _ENGLISH_ONLY_END

    def row_language(self, row: Mapping[str, Any]) -> str | None:
        """The code of a row's language: the one given for all, the row's own, or the tokenizer's.

        Raises:
            InputError: for a row's `language` that is not understood.
        """
        own = row.get("language")
        # Missing values are empty in CSV, and NaN in what pandas wrote.
        missing = (
            own is None or (isinstance(own, float) and math.isnan(own)) or (isinstance(own, str) and not own.strip())
        )
        if missing or self.given_language is not None:
            return self.given_language or self._default
        return language_code(own)

    def tokens(self, row: Mapping[str, Any], timestamps: bool = False) -> list[int]:
        """Start tokens, text and end token; with `timestamps`, the row's timestamped text if it has one.

        Raises:
            InputError: for a language or a timestamp that the tokenizer does not have.
        """
        language = self.row_language(row)
        stamped = timestamped_text(row) if timestamps else None
        if stamped is None:
            ids = self._text_ids(plain_text(row["text"], language), language)
        else:
            ids = self._timestamped_ids(stamped, language)
        return [*self.start_tokens(language, stamped is not None), *ids, self.tokenizer.eos_token_id]

    def _text_ids(self, text: str, language: str | None) -> list[int]:
        return self.tokenizer(spaced(text, language), add_special_tokens=False, split_special_tokens=True).input_ids

    def _timestamped_ids(self, text: str, language: str | None) -> list[int]:
        ids: list[int] = []
        for index, piece in enumerate(at_timestamps(text)):
            if index % 2:
                stamp = self._timestamp_id(piece)
                if stamp is None:
                    raise InputError(f"the tokenizer has no timestamp {piece}, but the text {text[:40]!r} does")
                ids.append(stamp)
            elif piece.strip():
                ids += self._text_ids(piece, language)
        return ids

    def _timestamp_id(self, stamp: str) -> int | None:
        """The id of a timestamp; tokenizers of older checkpoints do not list them, but the model has them all."""
        listed, first = self._id(stamp), self._id("<|0.00|>")
        before, step = self._id("<|notimestamps|>"), timestamp_step(stamp)
        if listed is not None or first is not None or before is None or step is None:
            return listed
        unlisted = before + 1 + step
        return unlisted if self.tokenizer.convert_ids_to_tokens(unlisted) is None else None

    def _id(self, token: str) -> int | None:
        id_: Any = self.tokenizer.convert_tokens_to_ids(token)
        return None if id_ == self.tokenizer.unk_token_id else id_

    def prompt(self, previous_text: str, length: int) -> list[int]:
        """`<|startofprev|>` and the end of a text without its timestamps: at most `length` ids, or none if not one
        of the text fits."""
        start: Any = self.tokenizer.convert_tokens_to_ids("<|startofprev|>")
        # Whisper itself puts this space, in every language (`WhisperTokenizer.get_prompt_ids`).
        text = f" {without_timestamps(previous_text).strip()}"
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids
        return [start, *ids[-(length - 1) :]] if length > 1 and text.strip() else []

    def longest(self, row: Mapping[str, Any]) -> int:
        """Label tokens of the row in its longest form, without the first start token, which is only an input.

        Raises:
            InputError: for a language or a timestamp that the tokenizer does not have.
        """
        forms = (False, True) if timestamped_text(row) is not None else (False,)
        return max(len(self.tokens(row, timestamps)) for timestamps in forms) - 1


def timestamped_text(row: Mapping[str, Any]) -> str | None:
    """The row's text with timestamp tokens, for example `<|0.00|> Hello.<|1.20|>`, if it has one."""
    for column in (*TIMESTAMPED_COLUMNS, "text"):
        text = row.get(column)
        if isinstance(text, str) and has_timestamps(text):
            return without_prompt(text)
    return None


def plain_text(text: str, language: str | None = None) -> str:
    """The words of a text without its timestamps.

    Args:
        text (`str`): with or without timestamps.
        language (`str`, *optional*): code; in languages without spaces, none replaces a timestamp.
    """
    return without_timestamps(text, "" if language in SPACELESS_LANGUAGES else " ")


def spaced(text: str, language: str | None) -> str:
    """The text with the leading space that Whisper's own transcriptions have."""
    if not text or text[0].isspace() or (language and language_code(language) in SPACELESS_LANGUAGES):
        return text
    return f" {text}"
