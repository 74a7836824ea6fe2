"""A complete Hub folder: what current and older transformers, faster-whisper and vLLM read, in one flat folder."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..files import write_whole
from ..model_folders import admit_language_model, check_model_folder, loading
from .remote_code import write_remote_code

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, WhisperTokenizer


def export_folder(model: "PreTrainedModel", processor: "ProcessorMixin", folder: str | os.PathLike) -> Path:
    """Save a model and its processor as a folder that is ready for the Hub except for the card.

    Returns:
        The folder.
    """
    model.save_pretrained(folder)
    return complete_hub_folder(folder, processor)


def complete_hub_folder(
    folder: str | os.PathLike, processor: "ProcessorMixin | None" = None, trust_remote_code: bool = False
) -> Path:
    """Add what a folder with saved weights lacks: code, both processor files, and all files of OpenAI's own folders.

    Args:
        folder (`str` or `os.PathLike`): Holds `config.json`, safetensors and `generation_config.json`.
        processor (`ProcessorMixin`, *optional*): Saved into the folder; by default the folder's own is used.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code of its own that the processor,
            or the language model of a FastSLM, needs.

    Returns:
        The folder.

    Raises:
        InputError: if the folder lacks weights, a config, a generation config or a complete processor.
    """
    from transformers import WhisperProcessor

    folder = Path(folder)
    _check_saved(folder)
    if processor is None:
        processor = _own_processor(folder, trust_remote_code)
    else:
        processor.save_pretrained(folder)
    # transformers v5 writes only processor_config.json; older releases, faster-whisper and vLLM read this file.
    processor.feature_extractor.save_pretrained(folder)
    if isinstance(processor, WhisperProcessor):
        write_vocabulary(processor.tokenizer, folder)
    write_remote_code(folder)
    return folder


def write_vocabulary(tokenizer: "WhisperTokenizer", folder: Path) -> None:
    """Write the vocabulary of a Whisper as in OpenAI's own folders, next to the tokenizer.json that has it all.

    transformers v5 writes only `tokenizer.json`; whisper.cpp's converter and slow tokenizers read these files.
    `vocab.json` has only the byte pairs: the converter takes every key for bytes.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    names = ("bos_token", "eos_token", "pad_token", "unk_token")
    special = {name: token for name in names if (token := getattr(tokenizer, name)) is not None}
    if tokenizer.extra_special_tokens:
        special["additional_special_tokens"] = tokenizer.extra_special_tokens
    files = {
        "vocab.json": dict(sorted(model["vocab"].items(), key=lambda entry: entry[1])),
        "added_tokens.json": {k: v for k, v in tokenizer.get_added_vocab().items() if k not in model["vocab"]},
        "special_tokens_map.json": special,
    }
    if tokenizer.english_spelling_normalizer:
        files["normalizer.json"] = tokenizer.english_spelling_normalizer
    for name, content in files.items():
        write_whole(folder / name, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    if "extra_special_tokens" in settings:
        # Its name in OpenAI's folders, which v5 also reads; v4 fails on the new one.
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
        write_whole(folder / "tokenizer_config.json", json.dumps(settings, indent=2, ensure_ascii=False) + "\n")
    merges = "".join(f"{' '.join(pair)}\n" for pair in model["merges"])
    write_whole(folder / "merges.txt", f"#version: 0.2\n{merges}")


def _check_saved(folder: Path) -> None:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    for name in ("config.json", "generation_config.json"):
        if not (folder / name).is_file():
            raise InputError(f"{folder} has no {name}: save a model into it with save_pretrained first")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} has no safetensors weights: save a model into it with save_pretrained first")


def _own_processor(folder: Path, trust_remote_code: bool) -> "ProcessorMixin":
    from transformers import AutoConfig, AutoProcessor, WhisperConfig, WhisperProcessor

    from ..transcription.whisper_checks import check_config, check_extractor, check_tokenizer

    # Without a tokenizer's files, AutoProcessor makes up an empty one.
    for files in (("processor_config.json", "preprocessor_config.json"), ("tokenizer.json", "vocab.json")):
        if not any((folder / name).is_file() for name in files):
            raise InputError(f"{folder} has no {files[0]}: save the processor that the model was trained with into it")
    code = check_model_folder(folder, trust_remote_code)
    admit_language_model(folder, code)
    with loading(folder, "config.json"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with loading(folder, "the processor"):
        if not isinstance(config, WhisperConfig):
            return AutoProcessor.from_pretrained(folder, trust_remote_code="AutoTokenizer" in code)
        processor = WhisperProcessor.from_pretrained(folder, trust_remote_code=False)
    check_config(config, str(folder))
    check_extractor(processor.feature_extractor, config, str(folder))
    check_tokenizer(processor.tokenizer, config, str(folder))
    return processor
