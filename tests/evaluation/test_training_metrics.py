"""WER and CER of a Trainer's evaluation: from padded ids to normalised text to rates."""

import numpy as np
import pytest
from transformers import EvalPrediction

from fastwhisper.evaluation.training_metrics import training_metrics

from ..recordings import tiny_processor
from ..whisper_assets import whisper_processor


def padded(rows, value):
    length = max(map(len, rows))
    return np.array([[*row, *[value] * (length - len(row))] for row in rows])


def measure(processor, hypotheses, references, language="en", padding=None):
    """`compute_metrics` on ids as a Trainer has them: predictions without, labels with Whisper's start tokens."""
    tokenizer = processor.tokenizer
    pad = tokenizer.pad_token_id if padding is None else padding
    predictions = padded([tokenizer(text, add_special_tokens=False).input_ids for text in hypotheses], pad)
    labels = padded([tokenizer(text).input_ids[1:] for text in references], -100)
    return training_metrics(processor, language)(EvalPrediction(predictions=predictions, label_ids=labels))


@pytest.fixture
def processor(demo_tokenizer):
    return tiny_processor(demo_tokenizer)


def test_rates_are_fractions_of_all_words_and_letters(processor):
    measured = measure(processor, [" turn on the lamp", " never mine"], [" turn on the lamp", " never mind"])
    assert measured == {"wer": pytest.approx(1 / 6), "cer": pytest.approx(1 / 26)}


@pytest.mark.parametrize("padding", [None, -100])
def test_padding_is_no_text(processor, padding):
    texts = [" yes", " turn on the lamp in the kitchen"]
    assert measure(processor, texts, texts, padding=padding) == {"wer": 0.0, "cer": 0.0}


def test_timestamps_and_start_tokens_are_left_out(processor):
    heard = ["<|0.00|> turn on<|0.80|><|0.80|> the lamp<|1.60|>"]
    assert measure(processor, heard, [" turn on the lamp"])["wer"] == 0.0
    assert measure(processor, [" turn on the lamp"], heard)["wer"] == 0.0


def test_text_is_normalised_by_its_language():
    processor = whisper_processor()
    assert measure(processor, [" It's Twenty-one!"], [" it is 21"])["wer"] == 0.0
    assert measure(processor, [" It's"], [" it is"], language="de")["wer"] > 0.0
    # Without spaces between words each letter counts as one.
    assert measure(processor, ["今日は世間"], ["今日は世界"], language="ja")["wer"] == pytest.approx(0.2)


def test_nothing_heard_is_all_wrong(processor):
    assert measure(processor, [""], [" never mind"])["wer"] == 1.0
