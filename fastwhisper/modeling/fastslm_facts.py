"""Facts of a FastSLM for its model card: token rate, sizes, counted FLOPs, longest audio."""

import copy
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import DynamicCache

from .modeling_fastslm import FastSLMForCausalLM, FastSLMModel

PARTS = ("audio_tower", "adapter", "multi_modal_projector", "language_model")
PROMPT_TOKENS = 32


@dataclass(frozen=True)
class FastSLMFacts:
    """What a card says of a FastSLM.

    Args:
        tokens_per_second (`float`): speech tokens a second at the full rate.
        parameters (`dict[str, int]`): parameters of each part.
        flops_per_minute (`dict[str, int]`):
            FLOPs of each part for a minute of audio, counted by torch's flop counter; the language model's are those
            of prefilling the minute's speech tokens.
        context_seconds (`float`, *optional*): longest audio that leaves room for a prompt, `None` without a limit.
        cache_bytes_per_second (`float`): memory of the language model's cache for a second of audio, in its dtype.
    """

    tokens_per_second: float
    parameters: dict[str, int]
    flops_per_minute: dict[str, int]
    context_seconds: float | None
    cache_bytes_per_second: float

    def seconds_in_memory(self, free_bytes: int) -> float:
        """Longest audio whose cache fits `free_bytes` (what a device has left beside weights and one block)."""
        return free_bytes / self.cache_bytes_per_second


def fastslm_facts(model: FastSLMForCausalLM) -> FastSLMFacts:
    """Count and measure; nothing is computed on the model's weights."""
    config = model.config
    step = config.window_seconds - config.window_overlap
    rate = config.qformer_config.check_rate(config.tokens_per_window) / step
    context = getattr(config.text_config, "max_position_embeddings", None)
    text = config.text_config
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    per_token = 2 * text.num_hidden_layers * text.num_key_value_heads * head_dim * model.dtype.itemsize
    return FastSLMFacts(
        tokens_per_second=rate,
        parameters={part: sum(p.numel() for p in model.model.get_submodule(part).parameters()) for part in PARTS},
        flops_per_minute=_count_minute(model, round(60 / step), round(60 * rate)),
        context_seconds=None if context is None else (context - PROMPT_TOKENS) / rate,
        cache_bytes_per_second=per_token * rate,
    )


@torch.inference_mode()
def _count_minute(model: FastSLMForCausalLM, windows: int, speech_tokens: int) -> dict[str, int]:
    with torch.device("meta"):
        shadow = FastSLMModel(copy.deepcopy(model.config)).eval()
        features = torch.zeros(windows, model.config.audio_config.num_mel_bins, model.config.window_mel_frames)
        embeddings = torch.zeros(1, speech_tokens, model.config.text_config.hidden_size)
    counts, counter = {}, FlopCounterMode(display=False)
    with counter:
        encoded = shadow.audio_tower(features)
        counts["audio_tower"] = counter.get_total_flops()
        adapted = shadow.adapter(encoded)
        counts["adapter"] = counter.get_total_flops()
        shadow.multi_modal_projector(adapted)
        counts["multi_modal_projector"] = counter.get_total_flops()
        cache = DynamicCache(config=shadow.config.text_config)
        shadow.language_model(inputs_embeds=embeddings, past_key_values=cache, use_cache=True)
        counts["language_model"] = counter.get_total_flops()
    totals = [0, *counts.values()]
    return {part: total - before for part, total, before in zip(PARTS, totals[1:], totals, strict=False)}


__all__ = ["FastSLMFacts", "fastslm_facts"]
