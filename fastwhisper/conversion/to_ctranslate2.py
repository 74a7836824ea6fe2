"""A Whisper for CTranslate2 and faster-whisper, by CTranslate2's own converter."""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..errors import check_installed
from ..files import write_whole
from ..transcription.ctranslate2_whisper import SETTINGS_FILE
from .to_whisper import write_whisper

# What faster-whisper reads beside the model, and what `transcribe --engine ctranslate2` does.
_COPIED = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json")


def check_ctranslate2() -> None:
    """Check that CTranslate2 is installed.

    Raises:
        InputError: if it is not.
    """
    check_installed("ctranslate2", extra="ctranslate2")


def write_ctranslate2(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    folder: Path,
    quantization: str | None = None,
) -> None:
    """Write what CTranslate2 and faster-whisper load, and the settings of the model that it came from.

    Args:
        model (`WhisperForConditionalGeneration`): a student, or any Whisper.
        processor (`WhisperProcessor`): of the model.
        folder (`Path`): exists.
        quantization (`str`, *optional*): one of CTranslate2's types; by default the model's own precision.
    """
    from ctranslate2.converters import TransformersConverter

    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".plain-") as place:
        plain = Path(place) / "whisper"
        plain.mkdir()
        write_whisper(model, processor, plain)
        converted = Path(place) / "ctranslate2"
        TransformersConverter(str(plain), copy_files=list(_COPIED)).convert(str(converted), quantization=quantization)
        for file in converted.iterdir():
            shutil.move(file, folder / file.name)
        if (plain / "normalizer.json").is_file():
            shutil.copy(plain / "normalizer.json", folder)
    write_whole(folder / SETTINGS_FILE, json.dumps(_settings(model), indent=2, sort_keys=True) + "\n")


def _settings(model: WhisperForConditionalGeneration) -> dict:
    """The config of the model, true length included, without what belongs to its own folder."""
    left_out = ("auto_map", "attribute_map", "_name_or_path")
    return {name: value for name, value in model.config.to_dict().items() if name not in left_out}
