"""Whisper's text normalisers, chosen by language, for WER and CER."""

from collections.abc import Callable

from transformers import WhisperTokenizer
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from ..data.languages import UNSPACED_LANGUAGES, language_code


def text_normalizer(language: str | None, tokenizer: WhisperTokenizer | None = None) -> Callable[[str], str]:
    """A function that normalises text as Whisper's own evaluation does, without surrounding space.

    English gets `EnglishTextNormalizer` (numbers, contractions, and British spelling if the tokenizer brings its
    spelling map); every other language and `None` get `BasicTextNormalizer`. Letters of scripts without spaces are
    separated, so that the word error rate of such texts is a character error rate.

    Args:
        language (`str`, *optional*): code, English name or language token of Whisper.
        tokenizer (`WhisperTokenizer`, *optional*): brings the map from British to American spelling.

    Raises:
        InputError: for a language that Whisper does not know.
    """
    code = language_code(language)
    normalize: Callable[[str], str]
    if code == "en":
        normalize = _english_normalizer(_spelling_map(tokenizer) or {})
    else:
        normalize = BasicTextNormalizer(split_letters=code in UNSPACED_LANGUAGES)
    # BasicTextNormalizer turns a final punctuation mark into a space.
    return lambda text: normalize(text).strip()


def _english_normalizer(spelling: dict[str, str]) -> Callable[[str], str]:
    english, basic = EnglishTextNormalizer(spelling), BasicTextNormalizer()

    def normalize(text: str) -> str:
        try:
            return english(text)
        except ValueError:
            # Python converts no number of over 4,300 digits: the text keeps it, and all others, as it has them.
            return basic(text)

    return normalize


def normalizer_name(language: str | None, tokenizer: WhisperTokenizer | None = None) -> str:
    """The name of `text_normalizer`'s choice, for a report: rates under different normalisers cannot be compared."""
    code = language_code(language)
    if code == "en":
        return "english" if _spelling_map(tokenizer) else "english without spelling map"
    return "basic, split letters" if code in UNSPACED_LANGUAGES else "basic"


def _spelling_map(tokenizer: WhisperTokenizer | None) -> dict[str, str] | None:
    return None if tokenizer is None else tokenizer.english_spelling_normalizer
