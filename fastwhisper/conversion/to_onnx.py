"""A Whisper for ONNX Runtime: an encoder, and a decoder without a cache, by torch's own exporter.

optimum's exporter for ONNX needs a transformers before version 5.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..errors import check_installed
from ..modeling.true_length_whisper import embedded
from .to_whisper import plain_whisper, write_processor

ENCODER, DECODER = "encoder_model.onnx", "decoder_model.onnx"
_OPSET = 18
_LARGEST = 2**31 - 2**26  # bytes of weights in the file itself, which must stay below 2 GB


def check_onnx() -> None:
    """Check that what torch's exporter needs is installed.

    Raises:
        InputError: if it is not.
    """
    check_installed("onnx", "onnxscript", extra="onnx")


class Encoder(nn.Module):
    """`input_features` `(batch, mel bins, frames)`, an even number up to the window, to `last_hidden_state`."""

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.encoder = model.model.encoder

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        states = embedded(self.encoder, input_features)
        for layer in self.encoder.layers:
            states = layer(states, None)
        return self.encoder.layer_norm(states)


class Decoder(nn.Module):
    """`input_ids` `(batch, tokens)` and the encoder's states to `logits` `(batch, tokens, vocabulary)`."""

    def __init__(self, model: WhisperForConditionalGeneration) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, encoder_hidden_states: torch.Tensor) -> torch.Tensor:
        decoded: Any = self.model.model.decoder(
            input_ids=input_ids, encoder_hidden_states=encoder_hidden_states, use_cache=False
        )
        return self.model.proj_out(decoded.last_hidden_state)


def write_onnx(model: WhisperForConditionalGeneration, processor: WhisperProcessor, folder: Path) -> None:
    """Write `encoder_model.onnx` and `decoder_model.onnx`, and the files of the processor and configs beside them.

    Args:
        model (`WhisperForConditionalGeneration`): a student, or any Whisper; exported in float32.
        processor (`WhisperProcessor`): of the model.
        folder (`Path`): exists.
    """
    plain = plain_whisper(model).float()
    frames = 2 * plain.config.max_source_positions
    features = torch.zeros(2, plain.config.num_mel_bins, frames // 2)
    states = torch.zeros(2, frames // 4, plain.config.d_model)
    ids = torch.full((2, 4), plain.config.decoder_start_token_id)
    batch, positions = torch.export.Dim("batch"), torch.export.Dim("positions", max=frames // 2)
    tokens = torch.export.Dim("tokens", max=plain.config.max_target_positions)
    _export(
        Encoder(plain),
        {"input_features": features},
        {"input_features": {0: batch, 2: 2 * positions}},
        "last_hidden_state",
        folder / ENCODER,
    )
    _export(
        Decoder(plain),
        {"input_ids": ids, "encoder_hidden_states": states},
        {"input_ids": {0: batch, 1: tokens}, "encoder_hidden_states": {0: batch, 1: positions}},
        "logits",
        folder / DECODER,
    )
    plain.config.save_pretrained(folder)
    plain.generation_config.save_pretrained(folder)
    write_processor(processor, folder)


def _export(
    module: nn.Module, inputs: dict[str, torch.Tensor], shapes: dict[str, Any], output: str, path: Path
) -> None:
    size = sum(weight.numel() * weight.element_size() for weight in module.parameters())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter about itself
        torch.onnx.export(
            module.eval(),
            kwargs=inputs,
            f=str(path),
            input_names=list(inputs),
            output_names=[output],
            dynamic_shapes=shapes,
            opset_version=_OPSET,
            dynamo=True,
            external_data=size > _LARGEST,
            verbose=False,
        )
