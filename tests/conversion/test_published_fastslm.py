"""Names of published FastSLM weights: each of them, its size, its sinusoids; LoRA matrices that do not fit."""

import math

import numpy as np
import pytest
import torch

from fastwhisper import HFQFormerConfig
from fastwhisper.conversion.published_fastslm import (
    convert_hfq_state_dict,
    convert_whisper_encoder,
    merge_lora,
    publish_hfq_state_dict,
    publish_whisper_encoder,
    split_lora,
    split_published,
)
from fastwhisper.errors import InputError
from fastwhisper.modeling.modeling_hfq_former import HFQFormer

WIDTH, POSITIONS = 8, 40
QUERIES = {"compressor1": 6, "compressor2": 5, "compressor3": 4, "compressor": 3}
KEYS = {"compressor1": 40, "compressor2": 20, "compressor3": 10, "compressor": 15}


def linear(name, out, into, bias=True):
    return {f"{name}.weight": (out, into), **({f"{name}.bias": (out,)} if bias else {})}


def norm(name):
    return {f"{name}.weight": (WIDTH,), f"{name}.bias": (WIDTH,)}


def published_shapes(width=WIDTH, queries=QUERIES, keys=KEYS, layers=2):
    """Every name of a published checkpoint but the language model's, and its shape, written down from the reference
    code's state dict: no table of the package is used."""
    shapes = {}
    for name, count in queries.items():
        shapes |= {f"{name}.query": (count, width), **norm(f"{name}.q_ln"), **norm(f"{name}.kv_ln")}
        shapes |= linear(f"{name}.out_proj", width, width)
        shapes |= {f"{name}.q_pos_embeds": (count, width), f"{name}.kv_pos_embeds": (keys[name], width)}
    for stage in ("stage1", "stage2"):
        for convolution in ("conv1", "conv2"):
            shapes |= {f"{stage}.{convolution}.weight": (width, width, 3), f"{stage}.{convolution}.bias": (width,)}
        shapes |= norm(f"{stage}.ln_post")
    for block in ("out_attn.0", "out_attn.1"):
        for attention in ("attn", "cross_attn"):
            for part in ("q", "k", "v", "out_proj"):
                shapes |= linear(f"{block}.{attention}.{part}", width, width, bias=part != "k")
        shapes |= {**norm(f"{block}.norm1"), **norm(f"{block}.norm2")}
    shapes |= linear("llm_proj", 12, width)
    shapes |= {"whisper.positional_embedding": (keys["compressor1"], width)}
    shapes |= {"whisper.conv1.weight": (width, 80, 3), "whisper.conv1.bias": (width,)}
    shapes |= {"whisper.conv2.weight": (width, width, 3), "whisper.conv2.bias": (width,), **norm("whisper.ln_post")}
    for layer in range(layers):
        block = f"whisper.blocks.{layer}"
        for part in ("query", "key", "value", "out"):
            shapes |= linear(f"{block}.attn.{part}", width, width, bias=part != "key")
        shapes |= {**norm(f"{block}.attn_ln"), **norm(f"{block}.mlp_ln")}
        shapes |= {**linear(f"{block}.mlp.0", 4 * width, width), **linear(f"{block}.mlp.2", width, 4 * width)}
    return {f"encoder.{name}": shape for name, shape in shapes.items()}


def sinusoids(positions, width):
    """As openai's Whisper has them, in float64."""
    timescales = np.exp(-math.log(10_000) / (width // 2 - 1) * np.arange(width // 2))
    angles = np.arange(positions)[:, None] * timescales[None]
    return torch.tensor(np.concatenate([np.sin(angles), np.cos(angles)], axis=1), dtype=torch.float32)


def published(**sizes):
    generator = torch.Generator().manual_seed(0)
    shapes = published_shapes(**sizes)
    return {
        name: sinusoids(*shape) if "pos_embeds" in name else torch.randn(shape, generator=generator)
        for name, shape in shapes.items()
    }


def adapter_of(weights):
    return {name: weight for name, weight in weights.items() if "llm_proj" not in name and "whisper" not in name}


def test_every_published_name_is_read_and_written():
    weights = published()
    adapter = convert_hfq_state_dict(weights)
    former = HFQFormer(HFQFormerConfig(hidden_size=WIDTH, num_attention_heads=2, max_source_positions=POSITIONS,
                                       stage_queries=[6, 5, 4], num_queries=3))  # fmt: skip
    former.load_state_dict(adapter, strict=True)
    back = publish_hfq_state_dict(former.state_dict(), POSITIONS)
    back |= publish_whisper_encoder(convert_whisper_encoder(split_published(weights)["audio_tower"]))
    projector = split_published(weights)["multi_modal_projector"]
    back |= {f"encoder.llm_proj.{name}": weight for name, weight in projector.items()}
    assert back.keys() == weights.keys()
    for name, weight in back.items():
        torch.testing.assert_close(weight, weights[name], atol=1e-4 if "pos_embeds" in name else 0, rtol=0)


def test_the_published_size_has_the_published_number_of_parameters():
    queries = {"compressor1": 80, "compressor2": 80, "compressor3": 80, "compressor": 50}
    keys = {"compressor1": 1500, "compressor2": 750, "compressor3": 375, "compressor": 240}
    shapes = adapter_of(published_shapes(1280, queries, keys))
    with torch.device("meta"):
        former = HFQFormer(HFQFormerConfig())
    written = publish_hfq_state_dict(former.state_dict(), 1500)
    assert {name: tuple(weight.shape) for name, weight in written.items()} == {
        name: tuple(1280 if size == WIDTH else size for size in shape) for name, shape in shapes.items()
    }
    learned = sum(weight.numel() for name, weight in written.items() if "pos_embeds" not in name)
    assert learned == 52_861_440


@pytest.mark.parametrize(
    "form",
    [
        pytest.param(lambda weight: weight[None], id="batch dimension"),
        pytest.param(lambda weight: weight.half(), id="float16"),
        pytest.param(lambda weight: weight.bfloat16(), id="bfloat16"),
        pytest.param(lambda weight: weight + 2e-4, id="rounding"),
    ],
)
def test_sinusoids_in_every_form(form):
    weights = {name: form(w) if "pos_embeds" in name else w for name, w in adapter_of(published()).items()}
    expected = convert_hfq_state_dict(published())
    converted = convert_hfq_state_dict(weights)
    assert converted.keys() == expected.keys() and all(torch.equal(converted[n], expected[n]) for n in expected)


def test_a_checkpoint_may_lack_sinusoids_and_queries_have_a_batch_dimension():
    weights = {name: weight for name, weight in published().items() if "pos_embeds" not in name}
    expected = convert_hfq_state_dict(published())
    weights = {name.removeprefix("encoder."): w[None] if name.endswith("query") else w for name, w in weights.items()}
    converted = convert_hfq_state_dict(weights)
    assert converted.keys() == expected.keys() and all(torch.equal(converted[n], expected[n]) for n in expected)


def interleaved(weight):
    return torch.stack(weight.chunk(2, dim=1), dim=2).flatten(1)


@pytest.mark.parametrize(
    "buffer", ["compressor1.q_pos_embeds", "compressor3.kv_pos_embeds", "compressor.kv_pos_embeds"]
)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda weight: weight.roll(1, 0), "differs by up to .* from the sinusoids", id="shifted"),
        pytest.param(interleaved, "differs by up to .* from the sinusoids", id="interleaved"),
        pytest.param(lambda weight: weight * torch.nan, "differs by up to nan", id="nan"),
        pytest.param(lambda weight: weight[:, :4], "has shape .* but only", id="narrow"),
        pytest.param(lambda weight: weight[None].repeat(2, 1, 1), "has shape .* but only", id="batch of two"),
        pytest.param(lambda weight: None, "published sinusoids: unknown weights: none; missing weights", id="gone"),
    ],
)
def test_other_sinusoids_are_an_error_that_names_them(buffer, change, message):
    weights = published()
    weights[f"encoder.{buffer}"] = change(weights[f"encoder.{buffer}"])
    weights = {name: weight for name, weight in weights.items() if weight is not None}
    with pytest.raises(InputError, match=message) as error:
        convert_hfq_state_dict(weights)
    assert buffer in str(error.value)


def test_sinusoids_of_another_number_of_frames():
    weights = published()
    weights["encoder.compressor2.kv_pos_embeds"] = sinusoids(21, WIDTH)
    with pytest.raises(InputError, match=r"compressor2.kv_pos_embeds has shape \(21, 8\), but only \(20, 8\)"):
        convert_hfq_state_dict(weights)


def test_a_long_list_of_names_is_cut():
    with pytest.raises(InputError, match=r"missing weights: .* and \d+ more") as error:
        convert_hfq_state_dict({"encoder.stage1.conv1.weight": torch.zeros(8, 8, 3)})
    assert len(str(error.value)) < 600


def test_half_a_lora_and_lora_without_a_weight():
    with pytest.raises(InputError, match="one of the two LoRA matrices is missing for q_proj"):
        split_lora({"base_model.model.q_proj.lora_A.weight": torch.zeros(2, 4)})
    with pytest.raises(InputError, match="without a matching weight in the language model: q_proj"):
        merge_lora({}, {"q_proj": (torch.zeros(2, 4), torch.zeros(4, 2))}, 1.0)
