"""How long an answer may be: by the duration of the audio, within the language model's context."""

import math
from typing import Any

import torch

from .prompt_audio import PromptAudio, placeholder_runs

# Tokens of text that a second of speech may need, plus some extra. Generous, since the model stops by itself.
TEXT_TOKENS_PER_SECOND = 10
EXTRA_TEXT_TOKENS = 32


class AudioTooLongError(ValueError):
    """The audio does not fit the language model's context; the message has the numbers."""


def context_tokens(config: Any) -> int | None:
    """Tokens that the language model of a `FastSLMConfig` can attend to; `None` if it names no limit."""
    return getattr(config.text_config, "max_position_embeddings", None)


def answer_tokens(seconds: float) -> int:
    """New tokens for a transcript of that many seconds."""
    return math.ceil(TEXT_TOKENS_PER_SECOND * seconds) + EXTRA_TEXT_TOKENS


def budget(config: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor | None, audio: list[PromptAudio]) -> int:
    """`max_new_tokens` for the longest audio of a batch of prompts, within the context."""
    new_tokens = answer_tokens(max(sum(prompt.window_seconds) for prompt in audio))
    context = context_tokens(config)
    return new_tokens if context is None else min(new_tokens, context - max(_lengths(input_ids, attention_mask)))


def check_fits(
    config: Any,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor | None,
    audio: list[PromptAudio],
    new_tokens: int,
) -> None:
    """Check that every prompt with speech and its answer fit the context.

    Raises:
        AudioTooLongError: with tokens needed, tokens available and the longest audio that fits.
    """
    context = context_tokens(config)
    if context is None:
        return
    for ids, length, prompt in zip(input_ids, _lengths(input_ids, attention_mask), audio, strict=True):
        if prompt.window_tokens and length + new_tokens > context:
            raise AudioTooLongError(_too_long(config, ids, length, prompt, new_tokens, context))


def _lengths(input_ids: torch.Tensor, attention_mask: torch.Tensor | None) -> list[int]:
    if attention_mask is None:
        return [input_ids.shape[1]] * len(input_ids)
    return attention_mask.sum(dim=1).tolist()


def _too_long(config: Any, ids: torch.Tensor, length: int, prompt: PromptAudio, new_tokens: int, context: int) -> str:
    speech, runs = sum(prompt.window_tokens), placeholder_runs(ids, config.audio_token_id)
    between = [begin - end for (_, end), (begin, _) in zip(runs, runs[1:], strict=False)]
    # Text in front of every window is its time: n windows then bring n - 1 such texts after the first.
    times = between if len(runs) == len(prompt.window_tokens) else []
    time = max(times, default=0)
    room = context - (length - speech - sum(times)) - new_tokens
    windows = max(0, room + time) // (max(prompt.window_tokens) + time)
    seconds = windows * (config.window_seconds - config.window_overlap)
    return (
        f"the audio does not fit the language model: {length + new_tokens} tokens are needed ({speech} of speech, "
        f"{length - speech} of text, {new_tokens} new), {context} are available; the longest audio that fits this "
        f"prompt is {seconds:.0f} s. Use shorter audio, or long_form='stitch' to answer it span by span"
    )


__all__ = ["AudioTooLongError", "answer_tokens", "budget", "check_fits", "context_tokens"]
