"""What is read of a checkpoint of another engine."""

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import WhisperConfig

# Settings of which the checkpoints of others say nothing, until the tokenizer is known.
NO_IDS: dict[str, Any] = {
    "pad_token_id": None,
    "bos_token_id": None,
    "eos_token_id": None,
    "decoder_start_token_id": 0,
}


@dataclass(frozen=True)
class CheckpointParts:
    """A Whisper's sizes and weights, and what the checkpoint says about its decoding.

    Args:
        config (`WhisperConfig`): sizes; ids of tokens are not set unless the checkpoint came from transformers.
        weights (`dict[str, torch.Tensor]`): under the names of `WhisperForConditionalGeneration`.
        generation (`dict`): settings of its generation config, as far as they are known.
    """

    config: WhisperConfig
    weights: dict[str, torch.Tensor]
    generation: dict[str, Any] = field(default_factory=dict)
