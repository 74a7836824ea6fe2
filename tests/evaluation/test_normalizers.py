"""Normalisers against those of openai-whisper, which every published WER is counted with."""

import random

import pytest

from fastwhisper.data.languages import language_code
from fastwhisper.errors import InputError
from fastwhisper.evaluation.normalizers import normalizer_name, text_normalizer

from ..whisper_assets import english_spelling_map, whisper_tokenizer

WORDS = """
the colour of Mr. Smith's grey programme wasn't cheque centre analyse twenty one hundred and five $20 3.5% o'clock I'm
they'll can't 1960s 2nd forty-two uh hmm (laughs) [noise] naïve café St. paid minus double oh seven
"""


def random_sentences(count: int) -> list[str]:
    rng = random.Random(0)
    ends = (" ", ", ", ". ", "? ", " - ", "  ")
    return [
        "".join(rng.choice(WORDS.split()) + rng.choice(ends) for _ in range(rng.randint(0, 12))) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def tokenizer_with_map():
    import copy

    tokenizer = copy.deepcopy(whisper_tokenizer())
    tokenizer.english_spelling_normalizer = english_spelling_map()
    return tokenizer


def test_english_equals_openai(tokenizer_with_map):
    from whisper.normalizers import EnglishTextNormalizer

    ours, theirs = text_normalizer("en", tokenizer_with_map), EnglishTextNormalizer()
    for sentence in random_sentences(300):
        assert ours(sentence) == theirs(sentence).strip()
    assert ours("The Colour of twenty-one programmes, isn't it?") == "the color of 21 programs is not it"


@pytest.mark.parametrize("language, split_letters", [("de", False), (None, False), ("ko", False), ("ja", True)])
def test_other_languages_equal_openai(language, split_letters):
    from whisper.normalizers import BasicTextNormalizer

    ours, theirs = text_normalizer(language), BasicTextNormalizer(split_letters=split_letters)
    for sentence in [*random_sentences(50), "Größe, bitte!", "안녕하세요, 세계.", "今日は、世界。"]:
        assert ours(sentence) == theirs(sentence).strip()


def test_scripts_without_spaces_are_split():
    assert text_normalizer("zh")("你好世界。") == "你 好 世 界"
    assert text_normalizer("korean")("안녕하세요 세계!") == "안녕하세요 세계"


def test_english_without_a_map_keeps_british_spelling(demo_tokenizer):
    assert text_normalizer("english", demo_tokenizer)("The colour, please.") == "the colour please"
    assert text_normalizer("en", None)("It's twenty five, isn't it?") == "it is 25 is not it"


def test_the_name_tells_what_was_used(tokenizer_with_map, demo_tokenizer):
    assert normalizer_name("English", tokenizer_with_map) == "english"
    assert normalizer_name("en", demo_tokenizer) == "english without spelling map"
    assert normalizer_name(None) == normalizer_name("fr", tokenizer_with_map) == "basic"
    assert normalizer_name("japanese") == "basic, split letters"


@pytest.mark.parametrize("given", ["en", "English", "<|en|>", " EN "])
def test_language_is_a_code_a_name_or_a_token(given):
    assert language_code(given) == "en"


def test_an_unknown_language_is_named():
    with pytest.raises(InputError, match="'klingon'"):
        text_normalizer("klingon")


@pytest.mark.parametrize("number", ["1" * 5000, "1,111" * 2000, "1." + "2" * 5000, "$1." + "2" * 5000])
def test_numbers_that_python_does_not_convert(number):
    normalize = text_normalizer("en")
    text = normalize(f"about {number} times")
    assert text.startswith("about ") and text.endswith(" times") and len(text) > 5000
