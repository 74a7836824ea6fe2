"""A Whisper for whisper.cpp: its ggml file, whose layout `whisper_model_load` in src/whisper.cpp documents.

No package on PyPI writes it. Sizes, mel filters and the tokens of text come first, then each tensor with a header.
"""

import json
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..errors import InputError
from .openai_names import OUTPUT_LAYER, check_widths, dimensions, openai_name

FILE = "ggml-model.bin"
# whisper.cpp finds control tokens by the size of the vocabulary: that of openai's English model is the smallest.
_LEAST_VOCABULARY = 51864
_MAGIC = 0x67676D6C
# Of each way to store weights: its number in the header of the file, and that of a weight's own type.
# Not float32, which the layout has: whisper.cpp takes the first layers only in float16, and aborts otherwise.
_STORED = {"float16": (1, 1), "q8_0": (2007, 8)}
_FLOAT32, _FLOAT16, _Q8_0 = 0, 1, 8
_BLOCK = 32  # weights that share a scale in q8_0


def check_ggml(model: WhisperForConditionalGeneration) -> None:
    """Check that whisper.cpp can run a model.

    Raises:
        InputError: for a vocabulary or a feed-forward layer that it has no place for.
    """
    config = model.config
    if config.vocab_size < _LEAST_VOCABULARY:
        raise InputError(f"whisper.cpp needs a vocabulary of openai, and this model's has {config.vocab_size} tokens")
    check_widths(config, "whisper.cpp")


def write_ggml(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    folder: Path,
    quantization: str | None = None,
) -> None:
    """Write a student, or any Whisper, as `ggml-model.bin`.

    Args:
        model (`WhisperForConditionalGeneration`): that `check_ggml` lets through.
        processor (`WhisperProcessor`): of the model.
        folder (`Path`): exists.
        quantization (`str`, *optional*): `float16`, the default, or `q8_0`, 8 bits with a scale for 32 weights each.

    Raises:
        InputError: for `q8_0` and rows that are no multiple of 32.
    """
    file_type, weight_type = _STORED[quantization or "float16"]
    sizes = dimensions(model.config)
    # In this order, and without openai's names.
    order = (
        *("n_vocab", "n_audio_ctx", "n_audio_state", "n_audio_head", "n_audio_layer"),
        *("n_text_ctx", "n_text_state", "n_text_head", "n_text_layer", "n_mels"),
    )
    with (folder / FILE).open("wb") as file:
        file.write(struct.pack("<I10ii", _MAGIC, *(sizes[name] for name in order), file_type))
        filters = np.ascontiguousarray(processor.feature_extractor.mel_filters.T, dtype="<f4")
        file.write(struct.pack("<ii", *filters.shape))
        file.write(filters.tobytes())
        _write_tokens(processor, file)
        for name, weight in model.state_dict().items():
            if name != OUTPUT_LAYER:
                _write_tensor(openai_name(name), weight.float().numpy(), weight_type, file)


def _write_tokens(processor: WhisperProcessor, file: BinaryIO) -> None:
    """The tokens of text as bytes; whisper.cpp adds the others itself."""
    bytes_of = {letter: byte for byte, letter in bytes_to_unicode().items()}
    vocabulary = json.loads(processor.tokenizer.backend_tokenizer.to_str())["model"]["vocab"]
    end = processor.tokenizer.eos_token_id
    tokens = sorted((rank, token) for token, rank in vocabulary.items() if rank < end)
    file.write(struct.pack("<i", len(tokens)))
    for _, token in tokens:
        text = bytes(bytes_of[letter] for letter in token)
        file.write(struct.pack("<i", len(text)) + text)


def _write_tensor(name: str, weight: np.ndarray, weight_type: int, file: BinaryIO) -> None:
    if name.startswith("encoder.conv") and name.endswith("bias"):
        weight = weight[:, None]
    kind = weight_type
    if weight.ndim < 2 or weight.shape[1] == 1 or name.endswith("positional_embedding"):
        kind = _FLOAT32
    elif weight.ndim == 3:
        kind = _FLOAT16
    elif kind == _Q8_0 and weight.shape[-1] % _BLOCK:
        raise InputError(f"q8_0 takes rows of a multiple of {_BLOCK} weights, and {name} has {weight.shape[-1]}")
    encoded = name.encode()
    file.write(struct.pack("<iii", weight.ndim, len(encoded), kind))
    file.write(struct.pack(f"<{weight.ndim}i", *weight.shape[::-1]))
    file.write(encoded)
    if kind == _Q8_0:
        file.write(_in_blocks(weight))
    else:
        file.write(np.ascontiguousarray(weight, dtype="<f4" if kind == _FLOAT32 else "<f2").tobytes())


def _in_blocks(weight: np.ndarray) -> bytes:
    """q8_0: of each 32 weights the scale in float16, and the weights in units of it."""
    blocks = weight.astype(np.float32).reshape(-1, _BLOCK)
    scales = np.abs(blocks).max(axis=1, keepdims=True) / 127.0
    units = np.rint(np.divide(blocks, scales, out=np.zeros_like(blocks), where=scales > 0))
    packed = np.empty(len(blocks), dtype=[("scale", "<f2"), ("units", "i1", _BLOCK)])
    packed["scale"], packed["units"] = scales[:, 0], units
    return packed.tobytes()
