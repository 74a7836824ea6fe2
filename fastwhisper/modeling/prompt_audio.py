"""The audio of the prompts of a batch: which speech tokens, of which windows, go where."""

from dataclasses import dataclass

import torch


@dataclass
class PromptAudio:
    """The speech tokens of one prompt.

    Args:
        features (`torch.Tensor`): `(speech tokens, width)`.
        window_tokens (`list[int]`): speech tokens of each window.
        window_seconds (`list[float]`): seconds of audio in each window.
    """

    features: torch.Tensor
    window_tokens: list[int]
    window_seconds: list[float]


def split_by_prompt(
    features: torch.Tensor, window_tokens: list[int], window_seconds: list[float], placeholders: list[int]
) -> list[PromptAudio]:
    """The audio of each prompt of a batch, by the number of its placeholders.

    Raises:
        ValueError: if the prompts do not take whole windows one after the other; the message names both counts.
    """
    prompts, window, token = [], 0, 0
    for row, wanted in enumerate(placeholders):
        first, start = window, token
        while window < len(window_tokens) and token - start < wanted:
            token += window_tokens[window]
            window += 1
        if token - start != wanted:
            raise ValueError(
                f"audio and placeholders do not match: prompt {row} has {wanted} placeholders, the windows for it "
                f"give {token - start} speech tokens"
            )
        prompts.append(PromptAudio(features[start:token], window_tokens[first:window], window_seconds[first:window]))
    if token != len(features):
        raise ValueError(
            f"audio and placeholders do not match: the prompts have {sum(placeholders)} placeholders, the audio "
            f"gives {len(features)} speech tokens"
        )
    return prompts


def placeholder_runs(ids: torch.Tensor, audio_token_id: int) -> list[tuple[int, int]]:
    """First place, and place after the last, of each unbroken run of placeholders in a prompt's ids `(length,)`."""
    is_audio = (ids == audio_token_id).long()
    edges = torch.diff(is_audio, prepend=is_audio.new_zeros(1), append=is_audio.new_zeros(1))
    begins, ends = (edges == 1).nonzero().flatten().tolist(), (edges == -1).nonzero().flatten().tolist()
    return list(zip(begins, ends, strict=True))
