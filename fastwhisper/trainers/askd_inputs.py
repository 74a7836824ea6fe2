"""What student and teacher are given of a batch: which features, how long, and the decoder's input."""

from typing import Any

import torch
from transformers import PreTrainedModel, WhisperConfig, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import shift_tokens_right

from ..data.true_length_features import pad_to_window
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.true_length_whisper import heard_frames


def with_decoder_inputs(inputs: dict[str, Any], labels: torch.Tensor, config: WhisperConfig) -> dict[str, Any]:
    """The inputs of a batch with `decoder_input_ids`, by default those that Whisper derives from the labels.

    Raises:
        ValueError: for labels that do not fit the decoder.
    """
    if labels.shape[1] > config.max_target_positions:
        raise ValueError(
            f"labels of {labels.shape[1]} tokens do not fit the decoder's {config.max_target_positions} positions"
        )
    if "decoder_input_ids" in inputs:
        return inputs
    pad, start = config.pad_token_id, config.decoder_start_token_id
    return {**inputs, "decoder_input_ids": shift_tokens_right(labels, pad, start)}  # type: ignore[arg-type]


def student_inputs(inputs: dict[str, Any], true_length: bool) -> dict[str, Any]:
    """The student's inputs, with features as long as its longest row."""
    heard = dict(inputs)
    if not true_length:
        heard.pop("context_frames", None)
    elif "input_features" in inputs:
        # Next to no margin leaves more in the batch than any row is heard with.
        heard["input_features"] = inputs["input_features"][..., : int(inputs["context_frames"].max())]
    return heard


def teacher_inputs(inputs: dict[str, Any], teacher: PreTrainedModel | None, window: int | None) -> dict[str, Any]:
    """The teacher's inputs: clean windows.

    Args:
        inputs (`dict`): those of a batch.
        teacher (`PreTrainedModel`, *optional*): which is told to hear all of them.
        window (`int`, *optional*): mel frames of a window, to which features of rows that are cut are continued.
    """
    heard = {name: value for name, value in inputs.items() if name != "context_frames"}
    if window is not None and "input_features" in inputs:
        heard["input_features"] = pad_to_window(inputs["input_features"], window)
    if isinstance(teacher, FastWhisperForConditionalGeneration):
        heard["true_length"] = False
    return heard


def cast(inputs: dict[str, Any], dtype: torch.dtype) -> dict[str, Any]:
    """The inputs with floating tensors in `dtype`, for a teacher held in half precision."""
    cast_inputs = {name: value.to(dtype) if name == "input_features" else value for name, value in inputs.items()}
    if "encoder_outputs" in inputs:
        cast_inputs["encoder_outputs"] = (inputs["encoder_outputs"][0].to(dtype),)
    return cast_inputs


@torch.no_grad()
def encode_frozen(whisper: WhisperForConditionalGeneration, heard: dict[str, Any]) -> Any:
    """Output of a frozen encoder, `(batch, frames, hidden)` first, without dropout, after SpecAugment."""
    features, contexts = heard["input_features"], heard.get("context_frames")
    if contexts is None:
        features = whisper.model._mask_input_features(features.clone(), heard.get("attention_mask"))
        return (whisper.model.encoder.eval()(features).last_hidden_state,)
    features = whisper.model._mask_input_features(features.clone(), heard_frames(features, contexts))
    return whisper.model.encoder.eval()(features, context_frames=contexts)
