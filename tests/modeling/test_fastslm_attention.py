"""An attention implementation asked for reaches the parts that it is meant for, and changes no output."""

import importlib.util

import pytest
import torch
from transformers import AttentionInterface, AttentionMaskInterface, AutoModelForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from fastwhisper import FastSLMForCausalLM

from ..fastslm_parts import QUERIES, prompts, tiny_fastslm, tiny_language_model, windows

NAME = "recorded"
CASES = [
    pytest.param(NAME, {"text", "audio"}, id="all"),
    pytest.param({"text_config": NAME}, {"text"}, id="text"),
    pytest.param({"audio_config": NAME}, {"audio"}, id="audio"),
    pytest.param({"text_config": NAME, "audio_config": NAME}, {"text", "audio"}, id="both"),
    pytest.param({"text_config": NAME, "audio_config": "eager"}, {"text"}, id="mixed"),
    pytest.param("sdpa", set(), id="none"),
]


@pytest.fixture
def seen(monkeypatch):
    """Attention modules that called the implementation `NAME`, which is torch's own under another name."""
    modules = []

    def recorded(module, *arguments, **settings):
        modules.append(module)
        return sdpa_attention_forward(module, *arguments, **settings)

    monkeypatch.setitem(AttentionInterface._global_mapping, NAME, recorded)
    monkeypatch.setitem(AttentionMaskInterface._global_mapping, NAME, sdpa_mask)
    return modules


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attention")
    tiny_fastslm().save_pretrained(folder)
    return folder


def inputs():
    return {**prompts(2 * QUERIES, QUERIES), "input_features": windows(3)}


def check(model, seen, parts, expected):
    """Every layer of `parts` and no other calls the implementation; logits are the expected ones."""
    seen.clear()
    logits = model(**inputs()).logits
    layers = {"text": model.model.language_model.layers, "audio": model.model.audio_tower.layers}
    wanted = {id(layer.self_attn) for part in parts for layer in layers[part]}
    assert len(wanted) == 2 * len(parts) and {id(module) for module in seen} == wanted
    real = inputs()["attention_mask"].bool()
    torch.testing.assert_close(logits[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("implementation", "parts"), CASES)
def test_loaded_with_an_implementation(implementation, parts, seen, folder):
    expected = FastSLMForCausalLM.from_pretrained(folder)(**inputs()).logits
    check(FastSLMForCausalLM.from_pretrained(folder, attn_implementation=implementation), seen, parts, expected)


@pytest.mark.parametrize(("implementation", "parts"), CASES)
def test_an_implementation_set_later(implementation, parts, seen, folder):
    model = FastSLMForCausalLM.from_pretrained(folder)
    expected = model(**inputs()).logits
    model.set_attn_implementation(implementation)
    check(model, seen, parts, expected)
    model.set_attn_implementation("sdpa")
    check(model, seen, set(), expected)


@pytest.mark.parametrize(("implementation", "parts"), CASES)
def test_built_from_a_configuration_with_an_implementation(implementation, parts, seen, folder):
    loaded = FastSLMForCausalLM.from_pretrained(folder)
    model = AutoModelForCausalLM.from_config(loaded.config, attn_implementation=implementation).eval()
    model.load_state_dict(loaded.state_dict())
    check(model, seen, parts, FastSLMForCausalLM.from_pretrained(folder)(**inputs()).logits)


def test_generation_calls_the_implementation(seen, folder):
    expected = FastSLMForCausalLM.from_pretrained(folder).generate(**inputs(), max_new_tokens=5)
    model = FastSLMForCausalLM.from_pretrained(folder, attn_implementation={"text_config": NAME})
    assert torch.equal(model.generate(**inputs(), max_new_tokens=5), expected)
    assert len(seen) == 2 * 5


def test_parts_keep_the_language_models_implementation(seen, tmp_path):
    tiny_language_model(tie_word_embeddings=True).save_pretrained(tmp_path)
    language_model = AutoModelForCausalLM.from_pretrained(tmp_path, attn_implementation=NAME)
    check(tiny_fastslm(language_model=language_model), seen, {"text"}, tiny_fastslm()(**inputs()).logits)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="flash attention needs a CUDA device")
@pytest.mark.skipif(importlib.util.find_spec("flash_attn") is None, reason="the package flash_attn is not installed")
@pytest.mark.parametrize("implementation", ["flash_attention_2", {"text_config": "flash_attention_2"}])
def test_flash_attention_equals_torchs_own(implementation, tmp_path):
    tiny_fastslm(language_model=tiny_language_model(hidden_size=64, head_dim=16)).save_pretrained(tmp_path)
    settings = {"dtype": torch.bfloat16, "device_map": "cuda"}
    own = FastSLMForCausalLM.from_pretrained(tmp_path, **settings)
    model = FastSLMForCausalLM.from_pretrained(tmp_path, attn_implementation=implementation, **settings)
    assert model.model.language_model.config._attn_implementation == "flash_attention_2"
    given = {name: value.to("cuda") for name, value in inputs().items()}
    real = given["attention_mask"].bool()
    logits, expected = model(**given).logits[real].float(), own(**given).logits[real].float()
    # Two bfloat16 computations of the same: a few of its roundings (2 ** -8) apart, measured on the largest logit.
    assert (logits - expected).abs().max() < 16 * 2**-8 * expected.abs().max()
    assert model.generate(**given, max_new_tokens=4).shape[0] == 2
