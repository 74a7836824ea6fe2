"""WER and CER while a Trainer evaluates with `predict_with_generate`."""

from collections.abc import Callable

import numpy as np
from transformers import EvalPrediction, WhisperProcessor

from .metrics import character_error_rate, word_error_rate
from .normalizers import text_normalizer


def training_metrics(
    processor: WhisperProcessor, language: str | None = None
) -> Callable[[EvalPrediction], dict[str, float]]:
    """A `compute_metrics` for `Seq2SeqTrainer`: `wer` and `cer` as fractions, on normalised text.

    Args:
        processor (`WhisperProcessor`): its tokenizer decodes predictions and labels; timestamps are left out.
        language (`str`, *optional*): selects the normaliser.
    """
    tokenizer = processor.tokenizer
    normalize = text_normalizer(language, tokenizer)

    def texts(ids: np.ndarray) -> list[str]:
        ids = np.where(ids == -100, tokenizer.eos_token_id, ids)
        return [normalize(text) for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        hypotheses, references = texts(np.asarray(prediction.predictions)), texts(np.asarray(prediction.label_ids))
        return {
            "wer": word_error_rate(references, hypotheses),
            "cer": character_error_rate(references, hypotheses),
        }

    return compute
