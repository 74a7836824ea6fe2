"""What people call a language against Whisper's own tables."""

import pytest
from transformers.models.whisper.tokenization_whisper import LANGUAGES, TO_LANGUAGE_CODE

from fastwhisper.data.languages import language_code
from fastwhisper.errors import InputError


def test_whispers_own_codes_names_and_tokens():
    for code in LANGUAGES:
        assert language_code(code) == language_code(f"<|{code}|>") == language_code(code.upper()) == code
    for name, code in TO_LANGUAGE_CODE.items():
        assert language_code(name) == language_code(f" {name.title()} ") == code
    assert language_code(None) is None


@pytest.mark.parametrize(
    ("given", "code"),
    [
        *[("en-US", "en"), ("en_GB", "en"), ("EN-us", "en"), ("eng", "en"), ("eng-GB", "en"), ("en_US.UTF-8", "en")],
        *[("zh-CN", "zh"), ("zh-Hans-CN", "zh"), ("cmn-Hans", "zh"), ("cmn", "zh"), ("zh-yue-HK", "yue")],
        *[("yue-Hant", "yue"), ("pt-BR", "pt"), ("sv-SE", "sv"), ("es-419", "es"), ("sr-Latn-RS", "sr")],
        *[("ger", "de"), ("deu", "de"), ("fre", "fr"), ("nb-NO", "no"), ("nn-NO", "nn"), ("fil-PH", "tl")],
        *[("he", "he"), ("iw", "he"), ("jv", "jw"), ("jav", "jw"), ("haw", "haw"), ("pes", "fa")],
        *[("Mandarin Chinese", "zh"), ("Cantonese Chinese", "yue"), ("Chinese (Simplified)", "zh")],
        *[("Brazilian Portuguese", "pt"), ("US English", "en"), ("English (United States)", "en")],
        *[("Norwegian Bokmål", "no"), ("Norwegian Nynorsk", "nn"), ("Farsi", "fa"), ("Haitian Creole", "ht")],
    ],
)
def test_tags_iso_codes_and_names(given, code):
    assert language_code(given) == code


@pytest.mark.parametrize("given", [1, 1.0, True, ["en"], "", "klingon", "1", "tlh", "xx-US", "und", "e"])
def test_what_is_no_language(given):
    with pytest.raises(InputError, match="Whisper has no language"):
        language_code(given)
