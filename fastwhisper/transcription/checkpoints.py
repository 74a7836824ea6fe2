"""Loads a Whisper and its processor by name or folder, ready to transcribe."""

import os
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    PreTrainedModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
)

from ..errors import InputError
from ..model_folders import check_model_folder, load_weights, loading
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.speech_windows import load_speech_encoder
from ..modeling.whisper_generation_config import complete_generation_config
from .whisper_checks import check_config, check_extractor, check_fit

Whisper = TypeVar("Whisper", bound=WhisperForConditionalGeneration)
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def load_checkpoint(
    name: str | os.PathLike,
    device: str | None = None,
    dtype: str | None = None,
    trust_remote_code: bool = False,
) -> tuple[WhisperForConditionalGeneration, WhisperProcessor]:
    """Load a Whisper, or a student of one, for inference; its generation config is completed if needed.

    A student of this package is a [`FastWhisperForConditionalGeneration`], which hears clips at their own length if it
    was trained so.

    Args:
        name (`str` or `os.PathLike`): name on the Hub or folder.
        device (`str`, *optional*): for example `cpu` or `cuda:0`; by default CUDA if available.
        dtype (`str`, *optional*): `float32`, `float16` or `bfloat16`; float32 on the CPU, which is slow at the others,
            float16 on CUDA.
        trust_remote_code (`bool`, *optional*, defaults to `False`): run the code of its own that the checkpoint names;
            otherwise a warning says that it is not run.

    Raises:
        InputError: if there is no such checkpoint, if it is no Whisper, if its files are damaged or do not
            belong together, if it needs its own code without `trust_remote_code`, for an unknown device or dtype.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = dtype or ("float16" if device.startswith("cuda") else "float32")
    if dtype not in DTYPES:
        raise InputError(f"there is no dtype {dtype!r}; choose one of {', '.join(DTYPES)}")
    check_device(device)
    model, processor = load_whisper(
        os.fspath(name), WhisperForConditionalGeneration, DTYPES[dtype], device, trust_remote_code
    )
    return model.eval(), processor


def load_whisper(
    name: str,
    model_class: type[Whisper],
    dtype: torch.dtype | Literal["auto"],
    device: str = "cpu",
    trust_remote_code: bool = False,
) -> tuple[Whisper, WhisperProcessor]:
    """Load a Whisper as a given class, with its processor; what its generation config lacks is added.

    With the dtype `auto` the weights stay in the precision that they are saved in. A folder with the record of a
    student is loaded as a [`FastWhisperForConditionalGeneration`] in any case.

    Raises:
        InputError: as [`load_checkpoint`], or for a class of its own that is no such Whisper.
    """
    code = check_model_folder(name, trust_remote_code)
    config = whisper_config(name, code)
    with loading(name, "the processor"):
        # The class by its name: AutoProcessor would look for one that the checkpoint names itself.
        own = code & {"AutoProcessor", "AutoTokenizer", "AutoFeatureExtractor"}
        load: Any = AutoProcessor if own else WhisperProcessor
        processor = load.from_pretrained(name, trust_remote_code=bool(own))
    _check_class(processor, WhisperProcessor, name)
    own = code & {"AutoModelForSpeechSeq2Seq"}
    plain: Any = FastWhisperForConditionalGeneration if _is_student(config) else model_class
    load = AutoModelForSpeechSeq2Seq if own else plain
    model = load_weights(load.from_pretrained, name, bool(own), dtype=dtype, device_map=device)
    _check_class(model, model_class, name)
    with loading(name, "generation_config.json"):
        complete_generation_config(model.generation_config, model.config, processor.tokenizer)
    check_fit(model, processor, name)
    return model, processor


def load_encoder(name: str, trust_remote_code: bool = False) -> tuple[PreTrainedModel, WhisperFeatureExtractor]:
    """Load the encoder of a Whisper, in the precision that it is saved in, and its feature extractor.

    Raises:
        InputError: if there is no such Whisper, or if the two do not fit.
    """
    code = check_model_folder(name, trust_remote_code)
    config = whisper_config(name, code)
    with loading(name, "the encoder"):
        own = AutoModel.from_pretrained(name, trust_remote_code=True) if "AutoModel" in code else None
        encoder = load_speech_encoder(name if own is None else own)
    with loading(name, "the feature extractor"):
        load: Any = AutoFeatureExtractor if "AutoFeatureExtractor" in code else WhisperFeatureExtractor
        extractor = load.from_pretrained(name, trust_remote_code="AutoFeatureExtractor" in code)
    _check_class(extractor, WhisperFeatureExtractor, name)
    check_extractor(extractor, config, name)
    return encoder, extractor


def display_name(name: str) -> str:
    """A name for reports: a Hub name as it is, or the last component of a folder."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def check_device(device: str) -> None:
    """Check that torch knows a device and has it here.

    Raises:
        InputError: if it does not.
    """
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"there is no device {device!r}; give cpu, cuda or cuda:1") from error
    counts = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    counts["mps"] = int(torch.backends.mps.is_available())
    count = counts.get(asked.type, 0)
    if count == 0:
        raise InputError(
            f"there is no device {device!r} here: torch {torch.__version__} finds no {asked.type.upper()}"
        )
    if (asked.index or 0) >= count:
        raise InputError(f"there is no device {device!r} here: the last one is {asked.type}:{count - 1}")


def whisper_config(name: str, code: set[str]) -> WhisperConfig:
    """The config of a Whisper whose files are intact, by its own code where that is to be run.

    Args:
        name (`str`): name on the Hub or folder.
        code (`set[str]`): AutoClasses of its own to use, as `check_model_folder` returned them.

    Raises:
        InputError: if there is no such Whisper.
    """
    with loading(name, "config.json"):
        config = AutoConfig.from_pretrained(name, trust_remote_code="AutoConfig" in code)
    if not isinstance(config, WhisperConfig):
        raise InputError(f"{name} is not a Whisper: its model_type is {config.model_type!r}")
    check_config(config, name)
    return config


def _check_class(loaded: object, wanted: type, name: str) -> None:
    """Refuse a class of the checkpoint's own that is not of the kind that is needed."""
    if not isinstance(loaded, wanted):
        raise InputError(f"{name}: its own class {type(loaded).__name__} is no {wanted.__name__}")


def _is_student(config: WhisperConfig) -> bool:
    """Whether a config has what only a [`FastWhisperConfig`] writes; plain Whisper's keeps what it does not know."""
    return any(getattr(config, field, None) is not None for field in ("decoder_layer_map", "true_length"))
