"""`fastwhisper.export`: a Whisper in the format of another engine, as a new folder."""

import os
from pathlib import Path

from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..errors import InputError
from ..files import new_folder, write_whole
from ..transcription.checkpoints import display_name, load_whisper
from .calls import how_to_call
from .to_ctranslate2 import check_ctranslate2, write_ctranslate2
from .to_ggml import check_ggml, write_ggml
from .to_onnx import check_onnx, write_onnx
from .to_openai import write_openai
from .to_whisper import write_whisper

# The engines, and the precisions that each of them can be told to store weights in.
TARGETS: dict[str, tuple[str, ...]] = {
    "whisper": (),
    "ctranslate2": (
        *("float32", "float16", "bfloat16", "int16"),
        *("int8", "int8_float32", "int8_float16", "int8_bfloat16"),
    ),
    "onnx": (),
    "ggml": ("float16", "q8_0"),
    "openai": (),
}


def export(
    model: str | os.PathLike,
    to: str,
    output: str | os.PathLike,
    quantization: str | None = None,
    trust_remote_code: bool = False,
) -> Path:
    r"""Write a Whisper, or a student of one, as the files that another engine reads.

    The folder also has a `README.md` with the call that loads it.

    Args:
        model (`str` or `os.PathLike`): name on the Hub or folder.
        to (`str`): a key of `TARGETS`.
        output (`str` or `os.PathLike`): folder; it must not exist yet, and does not exist after a failure.
        quantization (`str`, *optional*): how weights are stored; by default as they are saved.
        trust_remote_code (`bool`, *optional*, defaults to `False`): as for [`load_checkpoint`].

    Returns:
        The folder.

    Raises:
        InputError: for a model, an engine, a precision or a folder that cannot be used, or a missing package.
    """
    _check_target(to, quantization)
    if Path(output).exists():
        raise InputError(f"{output} already exists: choose a new folder or remove it")
    whisper, processor = load_whisper(
        os.fspath(model), WhisperForConditionalGeneration, "auto", trust_remote_code=trust_remote_code
    )
    if vars(whisper).get("peft_config"):
        raise InputError(f"{model} has adapters: merge them into its weights first (merge_and_unload of PEFT)")
    if getattr(whisper.config, "quantization_config", None) is not None:
        raise InputError(f"{model} is quantised: export the weights from before")
    with new_folder(Path(output)) as folder:
        _write(whisper, processor, to, folder, quantization)
        write_whole(folder / "README.md", how_to_call(display_name(os.fspath(model)), whisper, to))
    return Path(output)


def _check_target(to: str, quantization: str | None) -> None:
    if to not in TARGETS:
        raise InputError(f"there is no export to {to!r}; choose one of {', '.join(TARGETS)}")
    if quantization is not None and quantization not in TARGETS[to]:
        known = ", ".join(TARGETS[to]) or "none: weights stay as they are saved"
        raise InputError(f"{to} has no quantization {quantization!r}; it has {known}")
    if to == "ctranslate2":
        check_ctranslate2()
    elif to == "onnx":
        check_onnx()


def _write(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    to: str,
    folder: Path,
    quantization: str | None,
) -> None:
    if to == "whisper":
        write_whisper(model, processor, folder)
    elif to == "ctranslate2":
        write_ctranslate2(model, processor, folder, quantization)
    elif to == "onnx":
        write_onnx(model, processor, folder)
    elif to == "ggml":
        check_ggml(model)
        write_ggml(model, processor, folder, quantization)
    elif to == "openai":
        write_openai(model, folder)
