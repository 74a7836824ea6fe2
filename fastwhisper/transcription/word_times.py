"""When each word is said, read from the cross-attention of a model's alignment heads."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperTokenizer
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter
from transformers.models.whisper.tokenization_whisper import LANGUAGES, _combine_tokens_into_words

from ..data.timestamps import RESOLUTION
from ..modeling.whisper_generation_config import last_half_heads
from .token_kinds import TokenKinds
from .transcripts import Segment, Word

_TINY = torch.finfo(torch.float32).tiny
# From openai-whisper: punctuation that belongs to the word before it, and how far a word may leave its segment.
_CLOSING = frozenset("\"'.。,，!！?？:：”)]}、")
_FAR_OFF = 0.5


def token_times(
    model: WhisperForConditionalGeneration,
    encoded: BaseModelOutput,
    prompts: Sequence[list[int]],
    texts: Sequence[list[int]],
    frames: Sequence[int],
    kinds: TokenKinds,
) -> list[list[float]]:
    """Seconds from the start of the window at which each token of a text begins, and at which the last one ends.

    The decoder reads the text again, without times. Each token is aligned with the attention that it was chosen
    by, over the audio of its own row: neighbours in a batch and beams make no difference.

    Args:
        model (`WhisperForConditionalGeneration`): its attention implementation is restored afterwards.
        encoded (`BaseModelOutput`): encoder states `(batch, positions, hidden)`, one row a window.
        prompts (`Sequence[list[int]]`): start of transcript, language and task of each row.
        texts (`Sequence[list[int]]`): text tokens of each row.
        frames (`Sequence[int]`): feature frames of audio in each window, two a position.
        kinds (`TokenKinds`): of the model's tokenizer.

    Source: `find_alignment` in `timing.py` of openai-whisper.
    """
    # A window that the model filled to its last position is a token longer in this form.
    rows = [
        [*prompt, kinds.no_timestamps, *text, kinds.end_of_text][: model.config.max_target_positions]
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    longest = max(map(len, rows))
    padded = torch.tensor([row + [kinds.end_of_text] * (longest - len(row)) for row in rows], device=model.device)
    attention = _alignment_attention(model, encoded, padded)
    found = []
    for row, (prompt, ids, length) in enumerate(zip(prompts, rows, frames, strict=True)):
        weights = attention[row, :, : len(ids), : max(1, length // 2)].float().cpu()
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=_TINY)
        std, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
        standard = _median_filter((weights - mean) / std.clamp(min=_TINY), model.config.median_filter_width)
        matrix = standard.mean(dim=0)[len(prompt) : -1]
        tokens, positions = _dynamic_time_warping(-matrix.double().numpy())
        begins = np.diff(tokens, prepend=-1) > 0
        starts = [float(position) * RESOLUTION for position in positions[begins]]
        found.append(starts + [starts[-1]] * (len(texts[row]) + 1 - len(starts)))
    return found


def _alignment_attention(
    model: WhisperForConditionalGeneration, encoded: BaseModelOutput, ids: torch.Tensor
) -> torch.Tensor:
    """Cross-attention of the alignment heads, `(batch, heads, tokens, positions)`."""
    heads = getattr(model.generation_config, "alignment_heads", None) or last_half_heads(
        model.config.decoder_layers, model.config.decoder_attention_heads
    )
    caught: dict[int, torch.Tensor] = {}
    hooks = []
    # Only of these layers: the attention of all of them would take gigabytes.
    for layer in {layer for layer, _ in heads}:

        def catch(module, inputs, output, layer=layer) -> None:
            caught[layer] = output[1]

        hooks.append(model.model.decoder.layers[layer].encoder_attn.register_forward_hook(catch))
    try:
        with _eager_attention(model):
            model.model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack([caught[layer][:, head] for layer, head in heads], dim=1)


@contextmanager
def _eager_attention(model: WhisperForConditionalGeneration) -> Iterator[None]:
    """The only implementation that returns its weights."""
    implementation = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(implementation)


def words(
    tokenizer: WhisperTokenizer, tokens: list[int], times: list[float], segment: Segment, language: str | None
) -> list[Word]:
    """Words of a segment: each ends where the next token begins, not counting closing punctuation.

    Args:
        tokenizer (`WhisperTokenizer`): of the model.
        tokens (`list[int]`): text tokens of the segment.
        times (`list[float]`): when each of them begins, and when the last one ends, in seconds.
        segment (`Segment`): for its own times, which the first and last word are limited to if they are far off.
        language (`str`, *optional*): code; it decides how words are told apart.
    """
    # The tokenizer itself would take added words for times.
    reader = SimpleNamespace(eos_token_id=math.inf, decode=lambda ids, **options: tokenizer.decode(ids))
    texts, _, groups = _combine_tokens_into_words(reader, tokens, LANGUAGES[language or "en"])
    found = []
    for text, group in zip(texts, groups, strict=True):
        if text.strip():
            spoken = [place for place in group if tokenizer.decode([tokens[place]]).strip() not in _CLOSING] or group
            found.append(Word(text.strip(), times[spoken[0]], times[spoken[-1] + 1]))
    if found and found[0].start < segment.start - _FAR_OFF and found[0].end > segment.start:
        found[0] = replace(found[0], start=segment.start)
    if found and found[-1].end > segment.end + _FAR_OFF and found[-1].start < segment.end:
        found[-1] = replace(found[-1], end=segment.end)
    return found
