"""Whisper's languages: their codes, and which of them are written without spaces."""

from typing import overload

from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from ..errors import InputError

# Whisper writes these without spaces, also at the start of a transcription (openai-whisper, whisper/tokenizer.py).
SPACELESS_LANGUAGES = frozenset({"ja", "lo", "my", "th", "yue", "zh"})
# Scripts without spaces between words. Whisper's paper counts letters for zh, ja, th, lo and my; yue, km and bo, which
# Whisper knows as well, are written in the same way.
UNSPACED_LANGUAGES = SPACELESS_LANGUAGES | {"bo", "km"}


@overload
def language_code(language: str) -> str: ...
@overload
def language_code(language: None) -> None: ...
def language_code(language: str | None) -> str | None:
    """Whisper's code of a language given as a code, a name or a token: `en` for `en`, `English` and `<|en|>`.

    Raises:
        InputError: for a language that Whisper does not know.
    """
    if language is None:
        return None
    name = language.lower().strip().removeprefix("<|").removesuffix("|>")
    code = name if name in LANGUAGES else TO_LANGUAGE_CODE.get(name)
    if code is None:
        raise InputError(
            f"Whisper knows no language {language!r}; give a code or an English name, such as en or korean"
        )
    return code
