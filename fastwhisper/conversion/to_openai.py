"""A Whisper for openai-whisper: its `.pt` file."""

import base64
import gzip
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

from ..errors import InputError
from .openai_names import OUTPUT_LAYER, dimensions, openai_name

FILE = "model.pt"


def write_openai(model: WhisperForConditionalGeneration, folder: Path) -> None:
    """Write the weights of a student, or of any Whisper, as `model.pt`.

    Raises:
        InputError: for a feed-forward layer of another width than openai's code builds.
    """
    config = model.config
    if {config.encoder_ffn_dim, config.decoder_ffn_dim} != {4 * config.d_model}:
        raise InputError(f"openai-whisper takes only feed-forward layers of 4 x d_model = {4 * config.d_model}")
    weights = {
        openai_name(name): weight.contiguous() for name, weight in model.state_dict().items() if name != OUTPUT_LAYER
    }
    torch.save({"dims": dimensions(config), "model_state_dict": weights}, folder / FILE)


def alignment_dump(model: WhisperForConditionalGeneration) -> bytes:
    """The alignment heads as `set_alignment_heads` of openai-whisper takes them; the file has no place for them."""
    chosen = np.zeros((model.config.decoder_layers, model.config.decoder_attention_heads), dtype=bool)
    for layer, head in model.generation_config.alignment_heads:  # type: ignore[attr-defined, union-attr]
        chosen[layer, head] = True
    return base64.b85encode(gzip.compress(chosen.tobytes(), mtime=0))
