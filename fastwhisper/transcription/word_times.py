"""When each word is said, read from the cross-attention of a model's alignment heads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperTokenizer
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from .token_kinds import TIME_STEP, TokenKinds
from .transcripts import Word


def token_times(
    model: WhisperForConditionalGeneration,
    encoded: torch.Tensor,
    sequences: Sequence[tuple[list[int], list[int]]],
    frames: Sequence[int],
) -> list[list[float]]:
    """Seconds from the start of the window at which each token begins.

    The decoder reads what it wrote once more; attention over the audio of a row alone is warped onto its tokens alone,
    so that neighbours in a batch and beams make no difference.

    Args:
        model (`WhisperForConditionalGeneration`): its attention implementation is as before afterwards.
        encoded (`torch.Tensor`): encoder states `(batch, positions, hidden)`, one row a window.
        sequences (`Sequence[tuple[list[int], list[int]]]`): prompt, and tokens that followed it without the end of
            text, of each row.
        frames (`Sequence[int]`): feature frames of audio in each window, two a position.

    Source: `WhisperGenerationMixin._extract_token_timestamps`, and `timing.py` of openai-whisper.
    """
    if not sequences:
        return []
    longest = max(len(prompt) + len(tokens) for prompt, tokens in sequences)
    padding = model.config.pad_token_id or 0
    rows = [[*prompt, *tokens, *[padding] * longest][:longest] for prompt, tokens in sequences]
    attention = _alignment_attention(model, encoded, torch.tensor(rows, device=encoded.device))
    found = []
    for row, ((prompt, tokens), length) in enumerate(zip(sequences, frames, strict=True)):
        begin = len(prompt)
        weights = attention[row, :, begin : begin + len(tokens), : max(1, length // 2)].float().cpu()
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        # A place that all tokens attend to alike, as the only one of a single token, says nothing.
        standard = (weights - mean) / std.clamp(min=torch.finfo(torch.float32).tiny)
        matrix = _median_filter(standard, model.config.median_filter_width).mean(dim=0)
        places, positions = _dynamic_time_warping(-matrix.double().numpy())
        begins = np.diff(places, prepend=-1) > 0
        found.append([float(position) * TIME_STEP for position in positions[begins]])
    return found


def alignment_heads(model: WhisperForConditionalGeneration) -> list[tuple[int, int]]:
    """`(layer, head)` of the heads that follow the audio: those on record, else all of the upper half."""
    recorded = getattr(model.generation_config, "alignment_heads", None)
    if recorded:
        return [(layer, head) for layer, head in recorded]
    layers, heads = model.config.decoder_layers, model.config.decoder_attention_heads
    return [(layer, head) for layer in range(layers // 2, layers) for head in range(heads)]


def _alignment_attention(
    model: WhisperForConditionalGeneration, encoded: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    """Cross-attention of the alignment heads, `(batch, heads, tokens, positions)`."""
    heads = alignment_heads(model)
    caught: dict[int, torch.Tensor] = {}
    hooks = []
    # Of these layers alone: the attention of all of them would be gigabytes.
    for layer in {layer for layer, _ in heads}:

        def catch(module, inputs, output, layer=layer) -> None:
            caught[layer] = output[1]

        hooks.append(model.model.decoder.layers[layer].encoder_attn.register_forward_hook(catch))
    try:
        with _eager_attention(model):
            model.model.decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([caught[layer][:, head] for layer, head in heads], dim=1)


@contextmanager
def _eager_attention(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """The one implementation that gives its weights."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


def words(
    tokenizer: WhisperTokenizer,
    kinds: TokenKinds,
    tokens: list[int],
    times: list[float],
    segment_end: float,
    language: str | None,
) -> list[Word]:
    """Words of a segment: each ends where the token after it starts, the last one no earlier than the segment."""
    positions = [position for position, token in enumerate(tokens) if kinds.is_text(token)]
    texts, _, groups = _combine_tokens_into_words(
        tokenizer, [tokens[position] for position in positions], LANGUAGES[language or "en"]
    )
    found = []
    for text, group in zip(texts, groups, strict=True):
        if text.strip():
            following = positions[group[-1]] + 1
            end = times[following] if following < len(times) else segment_end
            found.append(Word(text.strip(), times[positions[group[0]]], end))
    return found
