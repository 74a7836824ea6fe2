"""A Whisper and its processor by name or folder, ready to transcribe."""

from pathlib import Path

import torch
from transformers import AutoProcessor, WhisperForConditionalGeneration, WhisperProcessor

from ..errors import InputError
from ..modeling.whisper_generation_config import complete_generation_config

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_checkpoint(
    name: str, device: str | None = None, dtype: str | None = None
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Load a Whisper, or a student of one, for inference; what its generation config lacks is added.

    Args:
        name (`str`): name on the Hub or folder.
        device (`str`, *optional*): such as `cpu` or `cuda:0`; CUDA where there is one.
        dtype (`str`, *optional*): `float32`, `float16` or `bfloat16`; float32 on the CPU, which is slow at the others,
            float16 on CUDA.

    Raises:
        InputError: where there is no such checkpoint, where it is no Whisper, for an unknown device or dtype.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float16" if device.startswith("cuda") else "float32")
    if dtype not in DTYPES:
        raise InputError(f"there is no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    check_device(device)
    processor = load_processor(name)
    model = WhisperForConditionalGeneration.from_pretrained(name, dtype=DTYPES[dtype], device_map=device)
    complete_generation_config(model.generation_config, model.config, processor.tokenizer)
    return model.eval(), processor


def load_processor(name: str) -> WhisperProcessor:
    """Load the processor of a Whisper.

    Raises:
        InputError: where there is no such checkpoint, and where it is no Whisper.
    """
    try:
        processor = AutoProcessor.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise InputError(f"{name} is no checkpoint with a processor: {error}") from error
    if not isinstance(processor, WhisperProcessor):
        raise InputError(f"{name} is no Whisper: its processor is a {type(processor).__name__}")
    return processor


def display_name(name: str) -> str:
    """A name for reports: a Hub name as it is, a folder by its last component."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def check_device(device: str) -> None:
    """Check that torch knows a device and has it here.

    Raises:
        InputError: where it does not.
    """
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise InputError(f"there is no device {device!r}; give cpu, cuda or cuda:1") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise InputError(f"there is no device {device!r} here: torch {torch.__version__} finds no CUDA")
