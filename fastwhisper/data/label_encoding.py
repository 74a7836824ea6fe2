"""From the text of a row to the token ids that a Whisper decoder is trained on."""

import copy
import re
from collections.abc import Mapping
from typing import Any

from transformers import WhisperTokenizer

from ..errors import InputError
from .languages import SPACELESS_LANGUAGES, language_code

TIMESTAMPED_COLUMNS = ("timestamped_text", "whisper_transcript")
# English-only Whispers have GPT-2's vocabulary, whose end of text is this id, and prompts without language and task.
_ENGLISH_ONLY_END = 50256
_TIMESTAMP = re.compile(r"<\|\d+\.\d\d\|>")


class LabelEncoder:
    r"""Token ids of a row: `WhisperTokenizer`'s own start tokens, the text, `<|endoftext|>`.

    Text is encoded with a leading space, as OpenAI's training data was: one is added where the text has none, except
    in languages that are written without spaces.

    Args:
        tokenizer (`WhisperTokenizer`):
            Not changed.
        language (`str`, *optional*):
            Code or English name, for rows without a `language` of their own; the tokenizer's own setting by default.
        task (`str`, *optional*):
            `transcribe` or `translate`; the tokenizer's own setting by default.
    """

    def __init__(self, tokenizer: WhisperTokenizer, language: str | None = None, task: str | None = None) -> None:
        # `prefix_tokens` is computed from three attributes: a shallow copy has its own, and shares the vocabulary.
        self.tokenizer = copy.copy(tokenizer)
        self._language = language or tokenizer.language
        self._task = task or tokenizer.task
        self._start_tokens: dict[tuple[str | None, bool], list[int]] = {}
        self.start_tokens(self._language, timestamps=False)

    def start_tokens(self, language: str | None, timestamps: bool) -> list[int]:
        """`<|startoftranscript|>`, language, task and, without `timestamps`, `<|notimestamps|>`, as ids.

        Raises:
            InputError: for a language or task that this tokenizer does not have.
        """
        key = (language, timestamps)
        if key not in self._start_tokens:
            named = self._named_in_prompt(language)
            self.tokenizer.language = language if named else None
            self.tokenizer.task = self._task if named else None
            self.tokenizer.predict_timestamps = timestamps
            try:
                ids = self.tokenizer.prefix_tokens
            except ValueError as error:
                raise InputError(str(error)) from error
            # The tokenizer counts language ids from the start token, also beyond the last language that it has.
            if named and language and f"<|{language_code(language)}|>" != self.tokenizer.convert_ids_to_tokens(ids[1]):
                raise InputError(f"the tokenizer has no language {language!r}")
            self._start_tokens[key] = ids
        return self._start_tokens[key]

    def _named_in_prompt(self, language: str | None) -> bool:
        if self.tokenizer.eos_token_id != _ENGLISH_ONLY_END:
            return True
        if self._task == "translate" or (language and language_code(language) != "en"):
            raise InputError(f"an English-only Whisper cannot {self._task or 'transcribe'} the language {language!r}")
        return False

    def row_language(self, row: Mapping[str, Any]) -> str | None:
        """The row's own `language` where it has one."""
        return row.get("language") or self._language

    def tokens(self, row: Mapping[str, Any], timestamps: bool = False) -> list[int]:
        """Start tokens, text and end token; with `timestamps` the row's timestamped text.

        Raises:
            InputError: for a language or a timestamp that the tokenizer does not have.
        """
        language = self.row_language(row)
        stamped = timestamped_text(row) if timestamps else None
        text = spaced(row["text"], language) if stamped is None else stamped
        if stamped is not None:
            self._check_timestamps(stamped)
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return [*self.start_tokens(language, stamped is not None), *ids, self.tokenizer.eos_token_id]

    def _check_timestamps(self, text: str) -> None:
        # The tokenizer would spell a timestamp that it does not have in letters.
        for stamp in _TIMESTAMP.findall(text):
            if self.tokenizer.convert_tokens_to_ids(stamp) == self.tokenizer.unk_token_id:
                raise InputError(f"the tokenizer has no timestamp {stamp}, which the text {text[:40]!r} has")

    def prompt(self, previous_text: str, length: int) -> list[int]:
        """`<|startofprev|>` and the end of a text without its timestamps: at most `length` ids, none where not one
        of the text fits.

        Raises:
            InputError: for a text with other special tokens.
        """
        try:
            ids = self.tokenizer.get_prompt_ids(_TIMESTAMP.sub("", previous_text), return_tensors=None)
        except ValueError as error:
            raise InputError(f"the previous text {previous_text[:40]!r} cannot be a prompt: {error}") from error
        return [ids[0], *ids[1:][-(length - 1) :]] if length > 1 and len(ids) > 1 else []

    def longest(self, row: Mapping[str, Any]) -> int:
        """Label tokens of the row in its longest form; the first start token is input alone."""
        forms = (False, True) if timestamped_text(row) is not None else (False,)
        return max(len(self.tokens(row, timestamps)) for timestamps in forms) - 1


def timestamped_text(row: Mapping[str, Any]) -> str | None:
    """The row's text with timestamp tokens, such as `<|0.00|> Hello.<|1.20|>`, where it has one."""
    for column in TIMESTAMPED_COLUMNS:
        if row.get(column) and _TIMESTAMP.search(row[column]):
            return row[column]
    return None


def spaced(text: str, language: str | None) -> str:
    """The text with the leading space that Whisper's own transcriptions have."""
    if not text or text[0].isspace() or (language and language_code(language) in SPACELESS_LANGUAGES):
        return text
    return f" {text}"
