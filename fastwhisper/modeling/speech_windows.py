"""Windows of speech through a Whisper encoder: in blocks, and at their true length if the encoder allows it."""

import os

import torch
from transformers import AutoConfig, AutoModel, PreTrainedModel
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from ..configuration.configuration_fastslm import MEL_FRAMES_PER_ENCODER_FRAME
from .true_length_whisper import context_frames, embedded


class FastSLMSpeechEncoder(WhisperEncoder):
    r"""Whisper's encoder, weight for weight, that also takes windows shorter than 30 s."""

    def forward(self, input_features: torch.Tensor, **kwargs) -> torch.Tensor:
        """Log-mel `(windows, mel bins, 2 * frames)` to `(windows, frames, hidden)`."""
        states = embedded(self, input_features)
        for layer in self.layers:
            states = layer(states, None, **kwargs)
        return self.layer_norm(states)


def check_windows(input_features: torch.Tensor, mel_bins: int, frames: int) -> None:
    """Check that features are windows.

    Raises:
        ValueError: for another shape than `(windows, mel_bins, frames)`.
    """
    if input_features.ndim != 3 or tuple(input_features.shape[1:]) != (mel_bins, frames):
        raise ValueError(
            f"input_features must be windows of {mel_bins} mel bins x {frames} frames, "
            f"got a tensor of shape {tuple(input_features.shape)}"
        )


def encoder_frames(input_features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Encoder frames of audio in each window `(windows,)`, on CPU; at least one, and all without a mask.

    Raises:
        ValueError: if the mask does not fit the features `(windows, mel bins, frames)`.
    """
    shape = (input_features.shape[0], input_features.shape[2])
    if mask is None:
        return torch.full((shape[0],), shape[1] // MEL_FRAMES_PER_ENCODER_FRAME)
    if tuple(mask.shape) != shape:
        raise ValueError(f"input_features_mask must have shape {shape}, got {tuple(mask.shape)}")
    mel_frames = mask.long().sum(dim=1).cpu()
    return (-(-mel_frames // MEL_FRAMES_PER_ENCODER_FRAME)).clamp(min=1)


def window_blocks(lengths: torch.Tensor, whole: int, size: int, margin: float | None) -> list[tuple[list[int], int]]:
    """Indices of at most `size` windows to encode together, and the encoder frames to use for them.

    At true length, a window's frames depend only on its own audio (rounded up to a second, so that windows can share
    a block): its tokens do not depend on the other windows.

    Args:
        lengths (`torch.Tensor`): encoder frames of audio in each window.
        whole (`int`): encoder frames of a window.
        size (`int`): windows in a block.
        margin (`float`, *optional*): seconds of silence kept behind the audio; `None` encodes whole windows.
    """
    groups: dict[int, list[int]] = {}
    for window, length in enumerate(lengths.tolist()):
        frames = whole
        if margin is not None:
            mel = context_frames(MEL_FRAMES_PER_ENCODER_FRAME * length, margin, MEL_FRAMES_PER_ENCODER_FRAME * whole)
            frames = mel // MEL_FRAMES_PER_ENCODER_FRAME
        groups.setdefault(frames, []).append(window)
    return [
        (windows[start : start + size], frames)
        for frames, windows in groups.items()
        for start in range(0, len(windows), size)
    ]


def load_speech_encoder(source: PreTrainedModel | str | os.PathLike) -> PreTrainedModel:
    """The encoder of a Whisper model, name or folder.

    Raises:
        ValueError: for a model of another kind, or for weights that lack some of the encoder's.
    """
    if isinstance(source, PreTrainedModel):
        config, model, missing = source.config, source, []
    else:
        config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    if config.model_type != "whisper":
        raise ValueError(f"the speech encoder must be a Whisper; {source!s:.80} has model_type {config.model_type!r}")
    if not isinstance(source, PreTrainedModel):
        model, info = AutoModel.from_pretrained(source, trust_remote_code=False, output_loading_info=True)
        missing = sorted(key for key in info["missing_keys"] if key.startswith("encoder."))
    if missing:
        raise ValueError(f"{source!s:.80} lacks weights of its encoder: {missing[0]} and {len(missing) - 1} more")
    return model if isinstance(model, WhisperEncoder) else model.get_encoder()
