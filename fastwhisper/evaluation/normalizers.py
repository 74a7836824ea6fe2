"""Whisper's text normalisers, chosen by language: what WER and CER are counted on."""

from collections.abc import Callable

from transformers import WhisperTokenizer
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from ..errors import InputError

# Scripts without spaces between words. Whisper's paper counts letters for zh, ja, th, lo and my; yue, km and bo, which
# Whisper knows as well, are written in the same way.
UNSPACED_LANGUAGES = frozenset({"bo", "ja", "km", "lo", "my", "th", "yue", "zh"})


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


def text_normalizer(language: str | None, tokenizer: WhisperTokenizer | None = None) -> Callable[[str], str]:
    """A function that normalises a text as Whisper's own evaluation does, with no white space at either end.

    English gets `EnglishTextNormalizer` (numbers, contractions, British spelling where the tokenizer brings its
    spelling map), every other language and `None` get `BasicTextNormalizer`. Letters of scripts without spaces are
    set apart, so that the word error rate of their texts is a character error rate.

    Args:
        language (`str`, *optional*): code, English name or language token of Whisper.
        tokenizer (`WhisperTokenizer`, *optional*): brings the map from British to American spelling.

    Raises:
        InputError: for a language that Whisper does not know.
    """
    code = language_code(language)
    normalize: Callable[[str], str]
    if code == "en":
        normalize = EnglishTextNormalizer(_spelling_map(tokenizer) or {})
    else:
        normalize = BasicTextNormalizer(split_letters=code in UNSPACED_LANGUAGES)
    # BasicTextNormalizer leaves the space that a final punctuation mark became.
    return lambda text: normalize(text).strip()


def normalizer_name(language: str | None, tokenizer: WhisperTokenizer | None = None) -> str:
    """The name of `text_normalizer`'s choice for a report, since rates under different normalisers do not compare."""
    code = language_code(language)
    if code == "en":
        return "english" if _spelling_map(tokenizer) else "english without spelling map"
    return "basic, split letters" if code in UNSPACED_LANGUAGES else "basic"


def _spelling_map(tokenizer: WhisperTokenizer | None) -> dict[str, str] | None:
    return None if tokenizer is None else tokenizer.english_spelling_normalizer
