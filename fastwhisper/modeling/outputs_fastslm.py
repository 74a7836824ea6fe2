"""What the FastSLM models return."""

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast


@dataclass
class FastSLMAudioOutput(BaseModelOutputWithPooling):
    r"""Speech tokens.

    Args:
        pooler_output (`torch.Tensor`):
            `(speech tokens, width of the language model)`: the tokens of all windows, one after the other.
        window_token_counts (`torch.LongTensor`):
            `(windows,)`: how many of them belong to each window.
    """

    window_token_counts: torch.Tensor | None = None


@dataclass
class FastSLMModelOutput(BaseModelOutputWithPast):
    r"""As [`BaseModelOutputWithPast`], with `audio_hidden_states` `(speech tokens, width)` where audio was given."""

    audio_hidden_states: torch.Tensor | None = None


@dataclass
class FastSLMCausalLMOutput(CausalLMOutputWithPast):
    r"""As [`CausalLMOutputWithPast`], with `audio_hidden_states` `(speech tokens, width)` where audio was given."""

    audio_hidden_states: torch.Tensor | None = None
