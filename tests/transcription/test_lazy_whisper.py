"""A teacher that is known before it is loaded."""

import json

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.errors import InputError
from fastwhisper.transcription.lazy_whisper import LazyWhisper, outline

from ..recordings import save_checkpoint
from ..tiny_models import tiny_whisper


@pytest.fixture(scope="module")
def folder(demo_tokenizer, tmp_path_factory):
    return save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, tmp_path_factory.mktemp("w") / "teacher")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_output_layer_is_read_without_the_model(folder, dtype):
    lazy = LazyWhisper.of_checkpoint(folder, dtype)
    assert lazy.model is None
    model = WhisperForConditionalGeneration.from_pretrained(folder, dtype=getattr(torch, dtype))
    assert torch.equal(lazy.output_layer, model.get_output_embeddings().weight)
    assert lazy.output_layer.dtype == model.dtype


def test_states_are_the_stock_model_s_and_let_go_is_undone(folder):
    lazy = LazyWhisper.of_checkpoint(folder)
    features = torch.randn(2, 80, 200)
    ids = torch.randint(800, (2, 5))
    targets = torch.tensor([[1, 1, 0, 0, 0], [0, 1, 1, 1, 1]]).bool()
    model = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(input_features=features, decoder_input_ids=ids).logits[targets]
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            states = lazy.last_states(lazy.encode(features), ids, targets)
        assert states.dtype == torch.float32
        torch.testing.assert_close(states @ lazy.output_layer.T, logits, rtol=1e-5, atol=1e-5)
        lazy.let_go()
        assert lazy.model is None


def test_a_teacher_of_true_length_hears_the_window(folder):
    model = FastWhisperForConditionalGeneration.from_teacher(folder)
    features = torch.cat([torch.randn(1, 80, 30), torch.zeros(1, 80, 170)], -1)  # padding as the model knows it
    ids, targets = torch.randint(800, (1, 5)), torch.ones(1, 5, dtype=torch.bool)

    def states():
        lazy = LazyWhisper.of_model(model)
        return lazy.last_states(lazy.encode(features), ids, targets)

    whole = states()
    model.config.true_length = True
    assert torch.equal(states(), whole)
    with torch.no_grad():
        cut = model.model(input_features=features, decoder_input_ids=ids).last_hidden_state[targets]
    assert not torch.allclose(cut, whole, atol=1e-3)


def test_the_fingerprint_is_that_of_weights_settings_and_precision(folder, demo_tokenizer, tmp_path):
    model = tiny_whisper(demo_tokenizer)
    model.model.encoder.layers[1].fc2.bias.data[3] += 1e-6
    moved = save_checkpoint(model, demo_tokenizer, tmp_path / "weights")
    heads = save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, tmp_path / "heads")
    config = json.loads((heads / "config.json").read_text())
    (heads / "config.json").write_text(json.dumps({**config, "decoder_attention_heads": 2}))
    same = save_checkpoint(tiny_whisper(demo_tokenizer), demo_tokenizer, tmp_path / "same")

    of = LazyWhisper.of_checkpoint
    names = [
        of(folder),
        of(moved),
        of(heads),
        of(folder, "float16"),
        LazyWhisper.of_model(tiny_whisper(demo_tokenizer)),
    ]
    assert len({lazy.fingerprint for lazy in names}) == 5
    assert of(same).fingerprint == of(folder).fingerprint
    assert LazyWhisper.of_model(tiny_whisper(demo_tokenizer)).fingerprint == names[-1].fingerprint


def test_an_outline_knows_the_size_of_the_model(folder):
    model, processor = outline(folder)
    whole = WhisperForConditionalGeneration.from_pretrained(folder)
    assert model.num_parameters() == whole.num_parameters() and model.device.type == "meta"
    assert model.config.to_dict() == whole.config.to_dict() and model.config._name_or_path == str(folder)
    assert processor.feature_extractor.chunk_length == 2
    for load in (outline, LazyWhisper.of_checkpoint):
        with pytest.raises(InputError, match="nowhere is not a checkpoint"):
            load("/nowhere")
