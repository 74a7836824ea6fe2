"""A FastWhisper that was kept answers as it did when it was: whatever versions are installed."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration

from ..golden.golden_fastwhisper import ANSWERS, FOLDER, golden_answers


@pytest.mark.parametrize("kind", [FastWhisperForConditionalGeneration, WhisperForConditionalGeneration])
def test_the_answers_are_those_that_were_kept(kind):
    kept, answers = load_file(ANSWERS), golden_answers(kind.from_pretrained(FOLDER).eval())
    assert answers.keys() == kept.keys()
    for name, answer in answers.items():
        torch.testing.assert_close(answer, kept[name], rtol=1e-4, atol=1e-5, msg=name)
    # No constants: what is heard hangs on the sound.
    assert len(set(kept["heard"].flatten().tolist())) > 4 and not torch.equal(*kept["heard"])
    assert kept["logits"].std() > 0.1 and kept["gradient"].abs().max() > 1e-3


def test_the_record_of_its_making_is_read():
    config = FastWhisperForConditionalGeneration.from_pretrained(FOLDER).config
    assert config.decoder_layer_map == [0, 3] and config.encoder_layer_map == [0, 1]
    assert config.teacher_decoder_layers == 4 and config.fastwhisper_version == "0.1.0"
