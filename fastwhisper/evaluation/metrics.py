"""Word and character error rate, as plain functions and as `evaluate.Metric` classes that need no Hub."""

from collections.abc import Sequence
from dataclasses import dataclass

import datasets
import evaluate
import jiwer


@dataclass(frozen=True)
class ErrorCounts:
    """Word alignment of a corpus, summed over its rows.

    Args:
        substitutions (`int`): reference words recognised as another word.
        deletions (`int`): reference words missing from the hypothesis.
        insertions (`int`): hypothesis words that match no reference word.
        hits (`int`): reference words recognised correctly.
    """

    substitutions: int
    deletions: int
    insertions: int
    hits: int

    @property
    def words(self) -> int:
        """Number of reference words."""
        return self.substitutions + self.deletions + self.hits


def count_errors(references: Sequence[str], hypotheses: Sequence[str]) -> ErrorCounts:
    """Substitutions, deletions, insertions and hits of a corpus, in words. An empty reference counts its insertions.

    Raises:
        ValueError: if the two differ in length.
    """
    _check_pairs(references, hypotheses)
    aligned = jiwer.process_words(list(references), list(hypotheses))
    return ErrorCounts(aligned.substitutions, aligned.deletions, aligned.insertions, aligned.hits)


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus WER: (substitutions + deletions + insertions) / reference words, as a fraction.

    Without a single reference word it is the number of words in the hypotheses: 0 if nothing was said and nothing
    recognised.

    Raises:
        ValueError: if the two differ in length.
    """
    _check_pairs(references, hypotheses)
    return float(jiwer.process_words(references, hypotheses).wer)


def character_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus CER: as [`word_error_rate`], counted in characters with the spaces among them.

    Raises:
        ValueError: if the two differ in length.
    """
    _check_pairs(references, hypotheses)
    return float(jiwer.process_characters(references, hypotheses).cer)


def _check_pairs(references: Sequence[str], hypotheses: Sequence[str]) -> None:
    # jiwer takes an empty list for an empty text.
    if len(references) != len(hypotheses):
        raise ValueError(f"there are {len(references)} references, but {len(hypotheses)} hypotheses")


class _CorpusErrorRate(evaluate.Metric):
    """What the two metrics share: strings in, one fraction out, nothing written to a cache."""

    description = ""

    def __init__(self, *args, keep_in_memory: bool = True, **kwargs):
        # Two processes writing to the default cache lock each other out.
        super().__init__(*args, keep_in_memory=keep_in_memory and kwargs.get("num_process", 1) == 1, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=self.description,
            citation="",
            inputs_description="\nArgs:\n    predictions: transcriptions\n    references: true texts\n",
            features=datasets.Features({"predictions": text, "references": text}),
            reference_urls=["https://github.com/jitsi/jiwer"],
        )


class WordErrorRate(_CorpusErrorRate):
    """`WordErrorRate().compute(predictions=..., references=...)` returns `{"wer": fraction}`."""

    description = "Corpus word error rate: (substitutions + deletions + insertions) / reference words."

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"wer": word_error_rate(list(references), list(predictions))}


class CharacterErrorRate(_CorpusErrorRate):
    """`CharacterErrorRate().compute(predictions=..., references=...)` returns `{"cer": fraction}`."""

    description = "Corpus character error rate: (substitutions + deletions + insertions) / reference characters."

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
        return {"cer": character_error_rate(list(references), list(predictions))}
