"""HFQ-Former: a hierarchical frame Q-Former, from the frames of a speech encoder to a few speech tokens per window.

Source: arXiv 2601.06199. Every option of `HFQFormerConfig` that the paper does not have is off by default.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_layers import GradientCheckpointingLayer

from ..configuration.configuration_fastslm import HFQFormerConfig, spread_queries


def sinusoids(positions: torch.Tensor, channels: int) -> torch.Tensor:
    """Fixed sinusoids `(positions, channels)` in float32, sines first, then cosines.

    With C channels and position p: sin(p t_i), cos(p t_i), t_i = 10000^(-i / (C/2 - 1)).
    """
    half = channels // 2
    step = math.log(10_000.0) / max(half - 1, 1)
    timescales = torch.exp(-step * torch.arange(half, dtype=torch.float32, device=positions.device))
    angles = positions.float()[:, None] * timescales[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def multi_head_attention(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, heads: int, key_mask: torch.Tensor | None
) -> torch.Tensor:
    """softmax(Q K^T / sqrt(D / heads)) V over `heads` slices of the width D.

    Args:
        queries (`torch.Tensor`): `(batch, queries, D)`.
        keys, values (`torch.Tensor`): `(batch, keys, D)`.
        key_mask (`torch.Tensor`, *optional*): `(batch, keys)`, `True` where a key may be seen.

    Returns:
        `torch.Tensor` of shape `(batch, queries, D)`.
    """

    def split(states: torch.Tensor) -> torch.Tensor:
        return states.unflatten(-1, (heads, -1)).transpose(1, 2)

    mask = None if key_mask is None else key_mask[:, None, None, :]
    attended = F.scaled_dot_product_attention(split(queries), split(keys), split(values), attn_mask=mask)
    return attended.transpose(1, 2).flatten(2)


class HFQCompressor(nn.Module):
    r"""Learned queries that read a sequence by one attention without projections.

    O = W softmax((LN(Q) + S_q) (LN(X) + S_k)^T / sqrt(d)) LN(X) + b, per head; no residual. S_q and S_k are
    sinusoids of the queries' and the keys' positions. Source: arXiv 2601.06199, compressor.
    """

    def __init__(self, config: HFQFormerConfig, num_queries: int):
        super().__init__()
        self.heads = config.num_attention_heads
        self.aligned = config.query_clock == "aligned"
        self.queries = nn.Parameter(torch.empty(num_queries, config.hidden_size))
        self.query_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.key_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(
        self,
        states: torch.Tensor,
        positions: int,
        key_mask: torch.Tensor | None = None,
        selected: torch.Tensor | None = None,
        key_clock: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Read `states`.

        Args:
            states (`torch.Tensor`): `(windows, length, hidden)`.
            positions (`int`): length of a whole window in the unit of `states`, at least `length`.
            key_mask (`torch.Tensor`, *optional*): `(windows, length)`, `True` where a state may be read.
            selected (`torch.Tensor`, *optional*): indices of the queries to use; all by default.
            key_clock (`torch.Tensor`, *optional*): positions of the states, `(length,)`; 0, 1, 2, ... by default.

        Returns:
            `torch.Tensor` of shape `(windows, queries, hidden)`.
        """
        channels = states.shape[-1]
        values = self.key_norm(states)
        key_clock = torch.arange(states.shape[1], device=states.device) if key_clock is None else key_clock
        keys = values + sinusoids(key_clock, channels).to(values.dtype)
        indices = torch.arange(self.queries.shape[0], device=states.device) if selected is None else selected
        clock = indices * positions / self.queries.shape[0] if self.aligned else indices
        queries = self.query_norm(self.queries[indices]) + sinusoids(clock, channels).to(values.dtype)
        queries = queries[None].expand(states.shape[0], -1, -1)
        return self.out_proj(multi_head_attention(queries, keys, values, self.heads, key_mask))


class HFQDownsampler(nn.Module):
    r"""Two convolutions with GELU, the second of stride 2, and a layer norm: n frames to ceil(n / 2)."""

    def __init__(self, config: HFQFormerConfig):
        super().__init__()
        self.conv1 = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(config.hidden_size, config.hidden_size, kernel_size=3, stride=2, padding=1)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """`mask` `(windows, n)` is `False` on padding, which then counts as the zeros after a sequence's end."""
        states = states.transpose(1, 2)
        for convolution in (self.conv1, self.conv2):
            if mask is not None:
                states = states * mask[:, None]
            states = F.gelu(convolution(states))
        return self.norm(states.transpose(1, 2))


class HFQAttention(nn.Module):
    r"""Multi-head attention with biases on queries, values and output, none on keys."""

    def __init__(self, config: HFQFormerConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: torch.Tensor, sources: torch.Tensor, key_mask: torch.Tensor | None) -> torch.Tensor:
        """`states` `(windows, queries, D)` read `sources` `(windows, keys, D)`."""
        attended = multi_head_attention(
            self.q_proj(states), self.k_proj(sources), self.v_proj(sources), self.heads, key_mask
        )
        return self.out_proj(attended)


class HFQBlock(GradientCheckpointingLayer):
    r"""Pre-norm self-attention and cross-attention with residuals; a feed-forward network where configured.

    x <- x + SelfAttention(LN(x)); x <- x + CrossAttention(LN(x), frames of all scales); [x <- x + FFN(LN(x))].
    """

    def __init__(self, config: HFQFormerConfig):
        super().__init__()
        self.self_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attention = HFQAttention(config)
        self.cross_attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.cross_attention = HFQAttention(config)
        self.dropout = nn.Dropout(config.dropout)
        self.feed_forward: nn.Module | None = None
        if config.intermediate_size is not None:
            self.feed_forward = nn.Sequential(
                nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
                nn.Linear(config.hidden_size, config.intermediate_size),
                nn.GELU(),
                nn.Linear(config.intermediate_size, config.hidden_size),
            )

    def forward(
        self,
        tokens: torch.Tensor,
        frames: torch.Tensor,
        token_mask: torch.Tensor | None,
        frame_mask: torch.Tensor | None,
    ) -> torch.Tensor:
        normed = self.self_attention_norm(tokens)
        tokens = tokens + self.dropout(self.self_attention(normed, normed, token_mask))
        normed = self.cross_attention_norm(tokens)
        tokens = tokens + self.dropout(self.cross_attention(normed, frames, frame_mask))
        if self.feed_forward is not None:
            tokens = tokens + self.dropout(self.feed_forward(tokens))
        return tokens


class HFQFormer(PreTrainedModel):
    r"""Hierarchical frame Q-Former: `(windows, max_source_positions, hidden)` to `(windows, num_queries, hidden)`.

    The frames and two (in general: `len(stage_queries) - 1`) halvings of their rate are each read by learned queries;
    further queries read what these have read; attention blocks let the tokens look back at the frames of all scales.
    Source: arXiv 2601.06199, HFQ-Former (named hierarchical temporal abstractor in its third version).
    """

    config_class = HFQFormerConfig
    main_input_name = "hidden_states"
    input_modalities = "audio"
    supports_gradient_checkpointing = True
    _no_split_modules = ["HFQCompressor", "HFQDownsampler", "HFQBlock"]
    # torch's attention is used here whatever is set for the language model.
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: HFQFormerConfig):
        super().__init__(config)
        self.downsamplers = nn.ModuleList(HFQDownsampler(config) for _ in config.stage_queries[1:])
        self.compressors = nn.ModuleList(HFQCompressor(config, queries) for queries in config.stage_queries)
        self.fusion = HFQCompressor(config, config.num_queries)
        self.blocks = nn.ModuleList(HFQBlock(config) for _ in range(config.num_blocks))
        self.gradient_checkpointing = False
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, HFQCompressor):
            init.normal_(module.queries, std=self.config.initializer_range)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        return True  # What is set for the language model does not affect the attention here.

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_lengths: torch.Tensor | None = None,
        tokens_per_window: int | None = None,
    ) -> torch.Tensor:
        """Speech tokens of windows.

        Args:
            hidden_states (`torch.Tensor`):
                Encoder frames `(windows, frames, hidden)`, 50 per second; fewer than `max_source_positions` are the
                beginning of a window whose rest is padding.
            frame_lengths (`torch.Tensor`, *optional*):
                Frames of audio in each window, `(windows,)`; used if `mask_padding` or `tokens_follow_length` is
                on. All frames by default.
            tokens_per_window (`int`, *optional*):
                One of `config.rates`; `config.num_queries` by default.

        Returns:
            `torch.Tensor` of shape `(windows, tokens_per_window, hidden)`. With `tokens_follow_length`, `kept_tokens`
            says which of them belong to the audio.

        Raises:
            ValueError: for frames of another width, too many frames, and a rate that the checkpoint does not have.
        """
        config = self.config
        windows, frames, width = hidden_states.shape
        if width != config.hidden_size or frames > config.max_source_positions:
            raise ValueError(
                f"the HFQ-Former takes at most {config.max_source_positions} frames of width {config.hidden_size}, "
                f"got {frames} of width {width}"
            )
        if frame_lengths is None:
            frame_lengths = torch.full((windows,), frames, device=hidden_states.device)
        frame_lengths = frame_lengths.to(hidden_states.device).clamp(1, frames)

        positions = config.max_source_positions
        stages: list[torch.Tensor] = []
        masks: list[torch.Tensor] = []
        summaries: list[torch.Tensor] = []
        states, lengths = hidden_states, frame_lengths
        for stage, compressor in enumerate(self.compressors):
            if stage:
                states = self.downsamplers[stage - 1](states, masks[-1] if config.mask_padding else None)
                lengths, positions = (lengths + 1) // 2, (positions + 1) // 2
            stages.append(states)
            masks.append(_length_mask(lengths, states.shape[1]))
            summaries.append(compressor(states, positions, masks[-1] if config.mask_padding else None))

        summary = torch.cat(summaries, dim=1)
        rate = config.check_rate(tokens_per_window)
        selected = torch.tensor(spread_queries(config.num_queries, rate), device=hidden_states.device)
        tokens = self.fusion(
            summary, summary.shape[1], self._kept_summaries(frame_lengths), selected, self._summary_clock(summary)
        )
        token_mask = self.kept_tokens(frame_lengths, rate) if config.tokens_follow_length else None
        frame_mask = torch.cat(masks, dim=1) if config.mask_padding else None
        all_frames = torch.cat(stages, dim=1)
        for block in self.blocks:
            tokens = block(tokens, all_frames, token_mask, frame_mask)
        return tokens

    def kept_tokens(self, frame_lengths: torch.Tensor, tokens_per_window: int | None = None) -> torch.Tensor:
        """Mask `(windows, tokens_per_window)` of the tokens that stand for audio; all without `tokens_follow_length`.

        Token counts equal `tokens_in_window`.
        """
        rate = self.config.check_rate(tokens_per_window)
        selected = torch.tensor(spread_queries(self.config.num_queries, rate), device=frame_lengths.device)
        return self._inside(frame_lengths, selected, self.config.num_queries)

    def _summary_clock(self, summary: torch.Tensor) -> torch.Tensor | None:
        """Positions of the queries of all scales where clocks are aligned: each scale spans the whole window."""
        if self.config.query_clock != "aligned":
            return None
        scales = [torch.arange(queries) * summary.shape[1] / queries for queries in self.config.stage_queries]
        return torch.cat(scales).to(summary.device)

    def _kept_summaries(self, frame_lengths: torch.Tensor) -> torch.Tensor | None:
        """Mask over the queries of all scales whose time lies inside the audio, or `None` for all."""
        if not self.config.tokens_follow_length:
            return None
        inside = [
            self._inside(frame_lengths, torch.arange(queries, device=frame_lengths.device), queries)
            for queries in self.config.stage_queries
        ]
        return torch.cat(inside, dim=1)

    def _inside(self, frame_lengths: torch.Tensor, indices: torch.Tensor, num_queries: int) -> torch.Tensor:
        """Whether the time of query i of Q, i / Q of a window, lies inside the audio; the first one always does."""
        if not self.config.tokens_follow_length:
            return torch.ones(len(frame_lengths), len(indices), dtype=torch.bool, device=frame_lengths.device)
        inside = indices[None] * self.config.max_source_positions < frame_lengths[:, None] * num_queries
        return inside | (indices == 0)[None]


def _length_mask(lengths: torch.Tensor, positions: int) -> torch.Tensor:
    return torch.arange(positions, device=lengths.device)[None] < lengths[:, None]


__all__ = ["HFQFormer"]
