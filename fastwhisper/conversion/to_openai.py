"""A Whisper for openai-whisper: its `.pt` file."""

import base64
import gzip
from pathlib import Path

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration

from .openai_names import OUTPUT_LAYER, check_widths, dimensions, openai_name

FILE = "model.pt"


def write_openai(model: WhisperForConditionalGeneration, folder: Path) -> None:
    """Write the weights of a student, or of any Whisper, as `model.pt`.

    Raises:
        InputError: for a feed-forward layer of another width than openai's code builds.
    """
    check_widths(model.config, "openai-whisper")
    weights = {
        openai_name(name): weight.contiguous() for name, weight in model.state_dict().items() if name != OUTPUT_LAYER
    }
    torch.save({"dims": dimensions(model.config), "model_state_dict": weights}, folder / FILE)


def alignment_dump(model: WhisperForConditionalGeneration) -> bytes:
    """The alignment heads as `set_alignment_heads` of openai-whisper takes them; the file has no place for them."""
    chosen = np.zeros((model.config.decoder_layers, model.config.decoder_attention_heads), dtype=bool)
    for layer, head in model.generation_config.alignment_heads:  # type: ignore[attr-defined, union-attr]
        chosen[layer, head] = True
    return base64.b85encode(gzip.compress(chosen.tobytes(), mtime=0))
