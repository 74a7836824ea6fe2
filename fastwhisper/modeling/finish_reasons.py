"""How an answer ended: by itself, at its maximum length, or in a loop."""

from typing import Any

import torch
from transformers import StoppingCriteria

FINISHED, CUT_BY_LENGTH, CUT_BY_LOOP_GUARD = "stop", "length", "loop"


class LoopGuard(StoppingCriteria):
    r"""Stops a row that repeats one n-gram over and over.

    A row ends in a loop if its last `max(min_repeats * n, min_length)` tokens repeat with a period of n tokens, for
    an n from 1 to `max_period`. A few words repeated a few times are not a loop.

    Args:
        prompt_length (`int`): Tokens before the generated ones.
        max_period (`int`, *optional*, defaults to 32): Longest n-gram.
        min_repeats (`int`, *optional*, defaults to 4): Least number of repeats.
        min_length (`int`, *optional*, defaults to 24): Least number of tokens in the loop.
    """

    def __init__(self, prompt_length: int, max_period: int = 32, min_repeats: int = 4, min_length: int = 24):
        self.prompt_length = prompt_length
        self.max_period = max_period
        self.min_repeats = min_repeats
        self.min_length = min_length

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor, **kwargs) -> torch.Tensor:
        return self.loops(input_ids[:, self.prompt_length :])

    def loops(self, generated: torch.Tensor) -> torch.Tensor:
        """Whether each row of `(batch, tokens)` ends in a loop, `(batch,)`."""
        looping = torch.zeros(len(generated), dtype=torch.bool, device=generated.device)
        length = generated.shape[1]
        for period in range(1, self.max_period + 1):
            span = max(self.min_repeats * period, self.min_length)
            if span <= length:
                tail = generated[:, length - span :]
                looping |= (tail[:, period:] == tail[:, :-period]).all(dim=1)
        return looping


def end_token_ids(model: Any) -> torch.Tensor:
    """Ids that end an answer of a FastSLM, then the one that pads the rest of its row, `(ids,)`."""
    ends = model.generation_config.eos_token_id
    ends = model.config.eos_token_id if ends is None else ends
    ends = ends if isinstance(ends, list) else [ends]
    return torch.tensor([end for end in [*ends, model.generation_config.pad_token_id] if end is not None])


def before_end(generated: torch.Tensor, end_ids: torch.Tensor) -> torch.Tensor:
    """The ids of an answer `(tokens,)` up to its first end; all of them if it has none."""
    ends = torch.isin(generated, end_ids.to(generated.device)).nonzero()
    return generated[: int(ends[0])] if len(ends) else generated


def finish_reason(generated: torch.Tensor, end_ids: torch.Tensor, guard: LoopGuard | None) -> str:
    """How an answer `(tokens,)` ended."""
    own = before_end(generated, end_ids)
    if guard is not None and bool(guard.loops(own[None])):
        return CUT_BY_LOOP_GUARD
    return FINISHED if len(own) < len(generated) else CUT_BY_LENGTH


__all__ = ["CUT_BY_LENGTH", "CUT_BY_LOOP_GUARD", "FINISHED", "LoopGuard"]
__all__ += ["before_end", "end_token_ids", "finish_reason"]
