"""Word and character error rate."""

import jiwer


def word_error_rate(references: list[str], hypotheses: list[str]) -> float:
    """Corpus WER: (substitutions + deletions + insertions) / reference words."""
    return jiwer.process_words(references, hypotheses).wer
