"""What a FastSLM costs: token rate, parameters, counted FLOPs, cache. No weights are needed."""

import copy
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from ..configuration.configuration_fastslm import FastSLMConfig
from ..modeling.modeling_fastslm import FastSLMForCausalLM, FastSLMModel

PARTS = ("audio_tower", "adapter", "multi_modal_projector", "language_model")
PROMPT_TOKENS = 32


@dataclass(frozen=True)
class FastSLMCosts:
    """What a FastSLM costs, as shown in its card.

    Args:
        tokens_per_window (`int`): speech tokens of a whole window, at the configured rate.
        tokens_per_second (`float`): speech tokens per second at that rate.
        parameters (`dict[str, int]`): parameters of each part; the language model's head is counted with it, once
            if it is tied.
        flops_per_minute (`dict[str, int]`):
            FLOPs of each part for a minute of audio, counted by torch's flop counter; the language model's are those
            of prefilling the minute's speech tokens, without its head.
        context_tokens (`int`, *optional*): most tokens that the language model takes, `None` if unlimited.
        cache_bytes_per_second (`float`):
            growth of the language model's cache per second of audio; layers that keep a window of the past or
            a state of fixed size do not grow.
    """

    tokens_per_window: int
    tokens_per_second: float
    parameters: dict[str, int]
    flops_per_minute: dict[str, int]
    context_tokens: int | None
    cache_bytes_per_second: float

    @property
    def context_seconds(self) -> float | None:
        """Longest audio whose tokens leave room for a prompt, `None` if unlimited; an answer also takes room."""
        return None if self.context_tokens is None else (self.context_tokens - PROMPT_TOKENS) / self.tokens_per_second

    def seconds_in_memory(self, free_bytes: int) -> float | None:
        """Longest audio whose cache fits `free_bytes`, `None` if the cache does not grow."""
        return max(0, free_bytes) / self.cache_bytes_per_second if self.cache_bytes_per_second else None


def count_costs(config: FastSLMConfig, dtype: torch.dtype) -> FastSLMCosts:
    """Count on a model without weights.

    Args:
        config (`FastSLMConfig`): Of the model.
        dtype (`torch.dtype`): Of the language model's cache.
    """
    step = config.window_seconds - config.window_overlap
    tokens_per_window = config.qformer_config.check_rate(config.tokens_per_window)
    rate = tokens_per_window / step
    with torch.device("meta"):
        # Built from operations that every release of torch counts: no fused attention, no fused experts.
        model = FastSLMForCausalLM._from_config(
            copy.deepcopy(config), attn_implementation="eager", experts_implementation="batched_mm"
        )
    model.float().eval()  # The parts' configurations may name other types than the model's.
    per_window = _count_window(model.model, tokens_per_window)
    prefill, cache_numbers = _count_prefill(model.model, max(1, round(60 * rate)))
    return FastSLMCosts(
        tokens_per_window=tokens_per_window,
        tokens_per_second=rate,
        parameters=_parameters(model),
        flops_per_minute={
            **{part: round(flops * 60 / step) for part, flops in per_window.items()},
            "language_model": prefill,
        },
        context_tokens=getattr(config.text_config, "max_position_embeddings", None),
        cache_bytes_per_second=cache_numbers * dtype.itemsize * rate,
    )


def _parameters(model: FastSLMForCausalLM) -> dict[str, int]:
    parts: dict[str, list[nn.Module]] = {part: [model.model.get_submodule(part)] for part in PARTS}
    parts["language_model"].append(model.lm_head)
    return {part: _count_once(modules) for part, modules in parts.items()}


def _count_once(modules: list[nn.Module]) -> int:
    weights = {id(weight): weight.numel() for module in modules for weight in module.parameters()}
    return sum(weights.values())


@torch.inference_mode()
def _count_window(model: FastSLMModel, tokens_per_window: int) -> dict[str, int]:
    """FLOPs of each part except the language model for one whole window."""
    config = model.config
    features = torch.zeros(1, config.audio_config.num_mel_bins, config.window_mel_frames, device="meta")
    with FlopCounterMode(display=False) as encoding:
        frames = model.audio_tower(features)
    with FlopCounterMode(display=False) as adapting:
        tokens = model.adapter(frames, tokens_per_window=tokens_per_window)
    with FlopCounterMode(display=False) as projecting:
        model.multi_modal_projector(tokens)
    counters = (encoding, adapting, projecting)
    return {part: counter.get_total_flops() for part, counter in zip(PARTS, counters, strict=False)}


@torch.inference_mode()
def _count_prefill(model: FastSLMModel, speech_tokens: int) -> tuple[int, float]:
    """FLOPs of the language model on speech tokens, and how many numbers its cache grows by for each of them."""
    config = model.config.text_config
    embeddings = torch.zeros(1, speech_tokens, config.hidden_size, device="meta")
    cache = DynamicCache(config=config)
    with FlopCounterMode(display=False) as counter:
        model.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
    growing = [layer for layer in cache.layers if isinstance(layer, DynamicLayer) and not layer.is_sliding]
    states = [kept for layer in growing for kept in (layer.keys, layer.values) if kept is not None]
    return counter.get_total_flops(), sum(kept.numel() for kept in states) / speech_tokens


__all__ = ["FastSLMCosts", "count_costs"]
