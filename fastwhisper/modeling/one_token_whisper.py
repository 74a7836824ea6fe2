"""Whisper's decoder for one new token: the same arithmetic, without most of what its modules cost in Python.

With one token, a layer of a small Whisper is 20 products of a vector, a few microseconds each, while its modules,
masks and caches take ten times as long to get there.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import EncoderDecoderCache
from transformers.models.whisper.modeling_whisper import WhisperAttention, WhisperPositionalEmbedding

from .true_length_whisper import TrueLengthDecoder, TrueLengthDecoderLayer

_ATTENTIONS = ("sdpa", "eager")  # that of this file computes what both do
# By their types and not what they are instances of: a subclass may compute something else.
_PLAIN = {
    TrueLengthDecoder, TrueLengthDecoderLayer, WhisperAttention, WhisperPositionalEmbedding,
    nn.Embedding, nn.LayerNorm, nn.Linear, nn.ModuleList,
}  # fmt: skip


class OneTokenDecoder:
    r"""The steps of a decoder after its first, with its weights of this moment: make a new one for each text.

    Args:
        decoder (`TrueLengthDecoder`): one that [`OneTokenDecoder.fits`].
    """

    def __init__(self, decoder: TrueLengthDecoder) -> None:
        self._tokens = decoder.embed_tokens.weight
        self._positions = decoder.embed_positions.weight
        self._layers = [_Layer(layer) for layer in decoder.layers]  # type: ignore[arg-type]
        self._norm = _norm(decoder.layer_norm)

    @staticmethod
    def fits(decoder: TrueLengthDecoder) -> bool:
        """Whether nothing but Whisper's own modules would run: no adapter, no quantised layer, no hook on any."""
        return (
            not decoder.training
            and decoder.config._attn_implementation in _ATTENTIONS
            and all(_is_plain(module) for module in decoder.modules())
        )

    def __call__(
        self, ids: torch.Tensor, cache: EncoderDecoderCache, cross_attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The last hidden states `(batch, 1, hidden)`; keys and values of the tokens are added to the cache.

        Args:
            ids (`torch.Tensor`): `(batch, 1)`.
            cache (`EncoderDecoderCache`): after the decoder's own first step.
            cross_attention_mask (`torch.Tensor`, *optional*): `(batch, 1, 1, positions)`, added to the attention
                scores, or `True` where they count.
        """
        own: Any = cache.self_attention_cache.layers
        heard = cache.cross_attention_cache.layers
        states = F.embedding(ids, self._tokens) + self._positions[own[0].keys.shape[-2]]
        for layer, past, speech in zip(self._layers, own, heard, strict=True):
            states = layer(states, past, speech, cross_attention_mask)
        return F.layer_norm(states, *self._norm)


class _Layer:
    """The weights of a decoder layer as tensors: looking one up in a module takes as long as a small product."""

    def __init__(self, layer: TrueLengthDecoderLayer) -> None:
        own, cross = layer.self_attn, layer.encoder_attn
        self._heads, self._scaling, self._activation = own.num_heads, own.scaling, layer.activation_fn
        self._own_norm, self._cross_norm = _norm(layer.self_attn_layer_norm), _norm(layer.encoder_attn_layer_norm)
        self._last_norm = _norm(layer.final_layer_norm)
        self._query, self._key, self._value, self._out = map(
            _linear, (own.q_proj, own.k_proj, own.v_proj, own.out_proj)
        )
        self._cross_query, self._cross_out = _linear(cross.q_proj), _linear(cross.out_proj)
        self._up, self._down = _linear(layer.fc1), _linear(layer.fc2)

    def __call__(self, states: torch.Tensor, past: Any, speech: Any, mask: torch.Tensor | None) -> torch.Tensor:
        batch, _, hidden = states.shape
        split = (batch, 1, self._heads, hidden // self._heads)

        normed = F.layer_norm(states, *self._own_norm)
        query = F.linear(normed, *self._query).view(split).transpose(1, 2)
        key = F.linear(normed, *self._key).view(split).transpose(1, 2)
        value = F.linear(normed, *self._value).view(split).transpose(1, 2)
        past.keys, past.values = torch.cat([past.keys, key], dim=2), torch.cat([past.values, value], dim=2)
        attended = F.scaled_dot_product_attention(query, past.keys, past.values, scale=self._scaling)
        states = states + F.linear(attended.reshape(batch, 1, hidden), *self._out)

        normed = F.layer_norm(states, *self._cross_norm)
        query = F.linear(normed, *self._cross_query).view(split).transpose(1, 2)
        attended = F.scaled_dot_product_attention(
            query, speech.keys, speech.values, attn_mask=mask, scale=self._scaling
        )
        states = states + F.linear(attended.reshape(batch, 1, hidden), *self._cross_out)

        normed = F.layer_norm(states, *self._last_norm)
        return states + F.linear(self._activation(F.linear(normed, *self._up)), *self._down)


def _norm(layer: nn.LayerNorm) -> Any:
    """The arguments of `layer_norm` behind its input."""
    return layer.normalized_shape, layer.weight, layer.bias, layer.eps


def _linear(layer: nn.Linear) -> Any:
    """The arguments of `linear` behind its input."""
    return layer.weight, layer.bias


def _is_plain(module: nn.Module) -> bool:
    """Whether a part of a decoder is one of Whisper's own, does what its class does, and nobody listens to it."""
    is_activation = next(module.children(), None) is next(module.parameters(), None) is None
    return (
        (type(module) in _PLAIN or is_activation)
        and "forward" not in module.__dict__
        and not module._forward_hooks
        and not module._forward_pre_hooks
    )


__all__ = ["OneTokenDecoder"]
