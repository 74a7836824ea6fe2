"""Facts for the model card of a FastSLM, against published sizes and formulas by hand."""

import pytest
import torch
from transformers import DynamicCache, Gemma2Config, Qwen3MoeConfig

from fastwhisper import FastSLMConfig
from fastwhisper.hub_cards.fastslm_costs import PROMPT_TOKENS, count_costs

from ..fastslm_parts import MEL_BINS, POSITIONS, QUERIES, tiny_fastslm, tiny_language_model

MINUTE = 60  # windows of 1 s
TOKENS = MINUTE * QUERIES


def costs_of(model, dtype=torch.float32):
    return count_costs(model.config, dtype)


def linear(rows, inner, outer):
    return 2 * rows * inner * outer


def attention(queries, keys, width):
    """Scores and weighted values of all heads."""
    return 2 * 2 * queries * keys * width


def test_the_default_has_the_published_sizes():
    costs = count_costs(FastSLMConfig(), torch.bfloat16)

    assert costs.parameters["adapter"] == 52_861_440
    assert costs.parameters["multi_modal_projector"] == 3_279_360
    # Qwen3-4B, whose head is its embedding.
    assert costs.parameters["language_model"] == 4_022_468_096
    assert costs.tokens_per_window == 50 and costs.tokens_per_second == pytest.approx(50 / 30)
    # 2 x 36 layers x 8 heads x 128 numbers of 2 bytes.
    assert costs.cache_bytes_per_second == pytest.approx(147_456 * 50 / 30)
    assert costs.context_seconds == pytest.approx((40_960 - PROMPT_TOKENS) * 30 / 50)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_parameters_are_those_of_the_model(tied, dtype):
    model = tiny_fastslm(language_model=tiny_language_model(tie_word_embeddings=tied).to(dtype))
    model.config.dtype = dtype
    costs = costs_of(model)

    assert sum(costs.parameters.values()) == model.num_parameters()
    body = sum(weight.numel() for weight in model.model.language_model.parameters())
    assert costs.parameters["language_model"] == body + (0 if tied else 120 * 48)
    assert costs.parameters["audio_tower"] == sum(weight.numel() for weight in model.model.audio_tower.parameters())


def test_flops_of_a_minute_by_hand():
    counted = costs_of(tiny_fastslm()).flops_per_minute

    width, hidden, frames = 32, 48, POSITIONS
    convolutions = linear(2 * frames, 3 * MEL_BINS, width) + linear(frames, 3 * width, width)
    layer = 4 * linear(frames, width, width) + attention(frames, frames, width) + 2 * linear(frames, width, 48)
    assert counted["audio_tower"] == MINUTE * (convolutions + 2 * layer)

    scales, queries = (frames, 25, 13), 8
    halving = sum(linear(long + short, 3 * width, width) for long, short in zip(scales, scales[1:], strict=False))
    reading = sum(attention(queries, scale, width) + linear(queries, width, width) for scale in scales)
    fusion = attention(QUERIES, 3 * queries, width) + linear(QUERIES, width, width)
    own = 4 * linear(QUERIES, width, width) + attention(QUERIES, QUERIES, width)
    across = 2 * linear(QUERIES, width, width) + 2 * linear(sum(scales), width, width)
    across += attention(QUERIES, sum(scales), width)
    assert counted["adapter"] == MINUTE * (halving + reading + fusion + 2 * (own + across))

    assert counted["multi_modal_projector"] == linear(TOKENS, width, hidden)

    heads = 4 * 12
    projections = 2 * linear(TOKENS, hidden, heads) + 2 * linear(TOKENS, hidden, heads // 2)
    layer = projections + attention(TOKENS, TOKENS, heads) + 3 * linear(TOKENS, hidden, 64)
    assert counted["language_model"] == 2 * layer


def test_each_token_costs_the_experts_that_it_visits():
    sizes = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 20}
    experts = costs_of(tiny_fastslm(language_model=tiny_language_model(Qwen3MoeConfig, **sizes)))
    dense = costs_of(tiny_fastslm(language_model=tiny_language_model(intermediate_size=40)))

    router = 2 * linear(TOKENS, 48, 8)
    assert experts.flops_per_minute["language_model"] == dense.flops_per_minute["language_model"] + router


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_cache_is_the_one_that_transformers_keeps(dtype):
    model = tiny_fastslm().to(dtype)
    cache = DynamicCache(config=model.config.text_config)
    second = torch.zeros(1, QUERIES, 48, dtype=dtype)
    model.model.language_model(inputs_embeds=second, past_key_values=cache, use_cache=True)
    size = sum(states.nbytes for layer in cache.layers for states in (layer.keys, layer.values))

    costs = costs_of(model, dtype)

    assert costs.cache_bytes_per_second == size
    assert costs.seconds_in_memory(10 * size) == pytest.approx(10)
    assert costs.seconds_in_memory(-1) == 0


def test_layers_that_forget_do_not_grow():
    settings = {"sliding_window": 16, "query_pre_attn_scalar": 12}
    half = costs_of(tiny_fastslm(language_model=tiny_language_model(Gemma2Config, **settings)))
    assert half.cache_bytes_per_second == costs_of(tiny_fastslm()).cache_bytes_per_second / 2

    none = tiny_language_model(Gemma2Config, **settings, layer_types=["sliding_attention"] * 2)
    assert costs_of(tiny_fastslm(language_model=none)).seconds_in_memory(10**9) is None


def test_costs_follow_overlap_and_rate():
    whole = costs_of(tiny_fastslm())
    half = costs_of(tiny_fastslm({"rates": (1, QUERIES)}, window_overlap=0.5, tokens_per_window=1))

    assert (half.tokens_per_window, half.tokens_per_second) == (1, 2)
    assert half.context_seconds == (512 - PROMPT_TOKENS) / 2
    for part, share in (("audio_tower", 2), ("multi_modal_projector", 2 / QUERIES)):
        assert half.flops_per_minute[part] == share * whole.flops_per_minute[part]
    assert half.flops_per_minute["language_model"] < whole.flops_per_minute["language_model"] * 2 / QUERIES
    assert half.cache_bytes_per_second == whole.cache_bytes_per_second * 2 / QUERIES


def test_nothing_is_written_into_the_configuration():
    model = tiny_fastslm()
    before = model.config.to_json_string(), model.config._attn_implementation

    costs_of(model)

    assert (model.config.to_json_string(), model.config._attn_implementation) == before
