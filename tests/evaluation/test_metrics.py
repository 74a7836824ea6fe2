"""Error rates against values counted by hand and against jiwer."""

import random

import jiwer
import pytest

from fastwhisper.evaluation.metrics import (
    CharacterErrorRate,
    WordErrorRate,
    character_error_rate,
    count_errors,
    word_error_rate,
)

REFERENCES = ["turn on the lamp", "never mind", "yes please"]
HYPOTHESES = ["turn off the lamp now", "mind", "yes please"]  # 1 substitution, 1 insertion; 1 deletion; none


def test_counts_by_hand():
    counts = count_errors(REFERENCES, HYPOTHESES)
    assert (counts.substitutions, counts.deletions, counts.insertions, counts.hits) == (1, 1, 1, 6)
    assert counts.words == 8


def test_rates_by_hand():
    assert word_error_rate(REFERENCES, HYPOTHESES) == 3 / 8
    # "on" -> "off" is 1 substitution and 1 insertion, " now" 4 insertions, "never " 6 deletions, of 16 + 10 + 10.
    assert character_error_rate(REFERENCES, HYPOTHESES) == 12 / 36


def test_a_corpus_rate_weighs_words_not_rows():
    assert word_error_rate(["a", "b c d e f g h i j"], ["x", "b c d e f g h i j"]) == 0.1


@pytest.mark.parametrize(
    "references, hypotheses, rate, words",
    [
        ([""], [""], 0.0, 0),
        ([""], ["two words"], 2.0, 0),
        (["a b", ""], ["a b", "c"], 0.5, 2),
        (["a b"], [""], 1.0, 2),
    ],
)
def test_empty_texts(references, hypotheses, rate, words):
    assert word_error_rate(references, hypotheses) == rate
    assert count_errors(references, hypotheses).words == words


def test_different_lengths_are_refused():
    with pytest.raises(ValueError):
        word_error_rate(["a", "b"], ["a"])


def test_equals_jiwer_on_random_corpora():
    rng = random.Random(0)
    corpus = [[" ".join(rng.choices("abcde", k=rng.randint(1, 8))) for _ in range(40)] for _ in range(2)]
    counts = count_errors(*corpus)
    assert word_error_rate(*corpus) == jiwer.wer(*corpus)
    assert word_error_rate(*corpus) == (counts.substitutions + counts.deletions + counts.insertions) / counts.words
    assert character_error_rate(*corpus) == jiwer.cer(*corpus)


def test_metric_classes_need_no_hub_and_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path))
    assert WordErrorRate().compute(predictions=HYPOTHESES, references=REFERENCES) == {"wer": 3 / 8}
    assert CharacterErrorRate().compute(predictions=HYPOTHESES, references=REFERENCES) == {"cer": 12 / 36}
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_metric_classes_add_up_batches():
    metric = WordErrorRate()
    for reference, hypothesis in zip(REFERENCES, HYPOTHESES, strict=True):
        metric.add_batch(predictions=[hypothesis], references=[reference])
    assert metric.compute() == {"wer": 3 / 8}


@pytest.mark.parametrize("rate", [word_error_rate, character_error_rate, count_errors])
@pytest.mark.parametrize(("references", "hypotheses"), [(["a"], []), ([], ["a"]), (["a", "b"], ["a"])])
def test_lists_of_other_lengths(rate, references, hypotheses):
    message = f"{len(references)} references, but {len(hypotheses)} hypotheses"
    with pytest.raises(ValueError, match=message):
        rate(references, hypotheses)
