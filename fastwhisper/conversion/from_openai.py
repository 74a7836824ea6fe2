"""A checkpoint of openai-whisper: a `.pt` file with sizes and weights, and nothing else."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from ..errors import InputError
from .checkpoint_parts import NO_IDS, CheckpointParts
from .openai_names import OUTPUT_LAYER, dimensions, openai_name


def read_openai(path: Path) -> CheckpointParts:
    """Read a checkpoint of openai-whisper.

    Raises:
        InputError: for a file that is damaged, no such checkpoint, or holds more than tensors.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, UnpicklingError, ValueError) as error:
        raise InputError(f"{path} is no checkpoint of openai-whisper: {' '.join(str(error).split())[:200]}") from error
    if not isinstance(saved, dict) or not {"dims", "model_state_dict"} <= saved.keys():
        raise InputError(f"{path} is no checkpoint of openai-whisper: it lacks dims and model_state_dict")
    sizes, theirs = saved["dims"], saved["model_state_dict"]
    lacking = [name for name in dimensions(WhisperConfig()) if not isinstance(sizes.get(name), int)]
    if lacking:
        raise InputError(f"{path} is no checkpoint of openai-whisper: its dims lack {lacking[0]}")
    config = _config(sizes)
    with torch.device("meta"):
        names = WhisperForConditionalGeneration(config).state_dict()
    weights = {name: theirs.get(openai_name(name)) for name in names if name != OUTPUT_LAYER}
    missing = [openai_name(name) for name, weight in weights.items() if weight is None]
    if missing:
        raise InputError(f"{path} has no weight {missing[0]}{f' and {len(missing) - 1} more' if missing[1:] else ''}")
    weights[OUTPUT_LAYER] = weights["model.decoder.embed_tokens.weight"]
    return CheckpointParts(config, weights)


def _config(sizes: dict[str, Any]) -> WhisperConfig:
    return WhisperConfig(
        num_mel_bins=sizes["n_mels"],
        max_source_positions=sizes["n_audio_ctx"],
        d_model=sizes["n_audio_state"],
        encoder_attention_heads=sizes["n_audio_head"],
        encoder_layers=sizes["n_audio_layer"],
        encoder_ffn_dim=4 * sizes["n_audio_state"],
        vocab_size=sizes["n_vocab"],
        max_target_positions=sizes["n_text_ctx"],
        decoder_attention_heads=sizes["n_text_head"],
        decoder_layers=sizes["n_text_layer"],
        decoder_ffn_dim=4 * sizes["n_text_state"],
        **NO_IDS,
    )
