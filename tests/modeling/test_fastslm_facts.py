"""Facts for the model card of a FastSLM."""

import pytest
import torch
from transformers import DynamicCache

from fastwhisper.modeling.fastslm_facts import PROMPT_TOKENS, fastslm_facts

from .fastslm_parts import QUERIES, tiny_fastslm


def test_facts_of_a_model():
    model = tiny_fastslm()
    facts = fastslm_facts(model)
    assert facts.tokens_per_second == QUERIES
    assert facts.context_seconds == (512 - PROMPT_TOKENS) / QUERIES
    body = sum(parameter.numel() for parameter in model.model.parameters())
    assert sum(facts.parameters.values()) == body
    assert facts.flops_per_minute["multi_modal_projector"] == 2 * 60 * QUERIES * 32 * 48
    assert all(count > 0 for count in facts.flops_per_minute.values())
    cache = DynamicCache(config=model.config.text_config)
    model.model.language_model(inputs_embeds=torch.zeros(1, QUERIES, 48), past_key_values=cache, use_cache=True)
    size = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    assert facts.cache_bytes_per_second == size
    assert facts.seconds_in_memory(10 * size) == pytest.approx(10)


def test_facts_follow_overlap_and_rate():
    model = tiny_fastslm({"rates": (1, QUERIES)}, window_overlap=0.5, tokens_per_window=1)
    facts = fastslm_facts(model)
    assert facts.tokens_per_second == 2
    assert facts.flops_per_minute["audio_tower"] == 2 * fastslm_facts(tiny_fastslm()).flops_per_minute["audio_tower"]
