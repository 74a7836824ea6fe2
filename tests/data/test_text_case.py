"""Texts in capitals become sentences; all others stay as they are."""

import logging

import pytest
from datasets import Dataset

from fastwhisper.data.text_case import sentence_case, warn_of_capitals, with_sentence_case


@pytest.mark.parametrize(
    "capitals, sentence",
    [
        ("IT'S WHAT I MEAN", "It's what I mean."),
        ("I'M SURE I'VE SEEN IT AND SO HAS HE", "I'm sure I've seen it and so has he."),
        ("WHERE AM I", "Where am I."),
        ("I'M I", "I'm I."),
        ("WHO?", "Who?"),
        (" 'TIS MINE", " 'Tis mine."),
        ("ÄRZTE HELFEN", "Ärzte helfen."),
        ("I-BEAMS IN TAXI", "I-beams in taxi."),
        ("<|0.00|> I SEE<|1.00|><|1.20|> WE DO<|2.00|>", "<|0.00|> I see.<|1.00|><|1.20|> We do.<|2.00|>"),
    ],
)
def test_capitals_become_a_sentence(capitals, sentence):
    assert sentence_case(capitals) == sentence


@pytest.mark.parametrize(
    "text", ["NASA has seen it", "already a sentence", "", "42", "今日は", "<|0.00|> Yes<|1.00|>"]
)
def test_other_texts_stay(text):
    assert sentence_case(text) == text


@pytest.mark.parametrize("streaming", [False, True])
def test_all_columns_of_text_and_no_others(streaming):
    rows = [
        {
            "audio": {"path": "A.wav"},
            "text": "GO ON",
            "previous_text": "STOP",
            "timestamped_text": None,
            "speaker": "ANN",
        },
        {"audio": {"path": "B.wav"}, "text": None, "previous_text": None, "timestamped_text": None, "speaker": "BOB"},
    ]
    dataset = Dataset.from_list(rows)
    found = list(with_sentence_case(dataset.to_iterable_dataset() if streaming else dataset))
    assert found[0] == {**rows[0], "text": "Go on.", "previous_text": "Stop."}
    assert found[1] == rows[1]


def test_a_dataset_in_capitals_is_named(caplog):
    with caplog.at_level(logging.WARNING):
        warn_of_capitals(Dataset.from_dict({"text": ["GO", "STOP", "Go on.", None]}))
        assert "2 of 3 texts are in capitals" in caplog.text and "--text_case sentence" in caplog.text
        caplog.clear()
        warn_of_capitals(Dataset.from_dict({"text": ["GO", "Stop."]}))
        assert not caplog.text
