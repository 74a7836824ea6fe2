"""`fastwhisper.import_model`: a checkpoint of CTranslate2 or openai-whisper as a folder of transformers."""

import json
import os
from pathlib import Path
from typing import Any

import torch
from transformers import (
    GenerationConfig,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)
from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..errors import InputError
from ..files import new_folder
from ..hub_cards.export import export_folder
from ..model_folders import loading
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.whisper_generation_config import complete_generation_config
from ..transcription.whisper_checks import END, START, check_config, check_fit
from .checkpoint_parts import CheckpointParts
from .from_ctranslate2 import read_ctranslate2
from .from_openai import read_openai
from .to_whisper import plain_config, write_whisper
from .whisper_tokenizers import build_tokenizer, load_tokenizer, openai_tokenizer

# Never written where a text is expected, as openai's own decoding has it.
_CONTROL = ("startoftranscript", "translate", "transcribe", "startoflm", "startofprev", "nospeech", "nocaptions")


def import_model(source: str | os.PathLike, output: str | os.PathLike, tokenizer: str | None = None) -> Path:
    r"""Write a checkpoint of another engine as a folder that transformers loads.

    A folder of `fastwhisper export` becomes what it was made from, a student with its record and true length; any
    other checkpoint becomes an ordinary Whisper folder. Weights keep their values; quantised ones become float32.

    Args:
        source (`str` or `os.PathLike`): a `.pt` file of openai-whisper, or a folder that holds one or a `model.bin` of
            CTranslate2.
        output (`str` or `os.PathLike`): folder; it must not exist yet, and does not exist after a failure.
        tokenizer (`str`, *optional*): name or folder of a Whisper whose tokenizer is used. By default that of the
            folder, or one of openai's by the size of the vocabulary, for which openai-whisper must be installed.

    Returns:
        The folder.

    Raises:
        InputError: for a checkpoint that cannot be read or whose tokenizer is not known.
    """
    path = _checkpoint_of(Path(source))
    if Path(output).exists():
        raise InputError(f"{output} already exists: choose a new folder or remove it")
    parts = read_openai(path) if path.suffix == ".pt" else read_ctranslate2(path.parent)
    words = _tokenizer(path, parts.config.vocab_size, tokenizer)
    model = _model(parts, words, path.parent)
    processor = WhisperProcessor(_extractor(model.config), words)
    check_config(model.config, str(path))
    check_fit(model, processor, str(path))
    with new_folder(Path(output)) as folder:
        if isinstance(model, FastWhisperForConditionalGeneration):
            export_folder(model, processor, folder)
        else:
            write_whisper(model, processor, folder)
    return Path(output)


def _checkpoint_of(source: Path) -> Path:
    """The file with the weights."""
    if source.is_file():
        if source.suffix == ".pt" or source.name == "model.bin":
            return source
        raise InputError(f"{source} is neither a .pt file of openai-whisper nor a model.bin of CTranslate2")
    if not source.is_dir():
        raise InputError(f"there is no {source}")
    if (source / "model.bin").is_file():
        return source / "model.bin"
    found = sorted(source.glob("*.pt"))
    if len(found) != 1:
        raise InputError(f"{source} holds no model.bin of CTranslate2, and {len(found)} .pt files: name one file")
    return found[0]


def _tokenizer(path: Path, vocabulary: int, name: str | None) -> WhisperTokenizer:
    if name is not None:
        return load_tokenizer(name)
    if path.name == "model.bin":
        if (path.parent / "tokenizer.json").is_file():
            return load_tokenizer(str(path.parent))
        for file in ("vocabulary.json", "vocabulary.txt"):
            if (path.parent / file).is_file():
                return build_tokenizer(_tokens(path.parent / file))
    return openai_tokenizer(vocabulary)


def _tokens(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    with loading(path.parent, path.name):
        return json.loads(text) if path.suffix == ".json" else text.removesuffix("\n").split("\n")


def _model(parts: CheckpointParts, tokenizer: WhisperTokenizer, folder: Path) -> WhisperForConditionalGeneration:
    config = parts.config
    ids = tokenizer.get_vocab()
    own = isinstance(config, FastWhisperConfig)
    if not own:
        config.bos_token_id = config.eos_token_id = config.pad_token_id = ids[END]
        config.decoder_start_token_id = ids[START]
    is_student = isinstance(config, FastWhisperConfig) and config.decoder_layer_map is not None
    load: Any = FastWhisperForConditionalGeneration if is_student else WhisperForConditionalGeneration
    with torch.device("meta"):
        model = load(config if is_student else plain_config(config))
    with loading(folder, "the weights"):
        model.load_state_dict(parts.weights, assign=True)
    model.tie_weights()
    model.to(_precision(parts.weights))
    if own and (folder / "generation_config.json").is_file():
        with loading(folder, "generation_config.json"):
            model.generation_config = GenerationConfig.from_pretrained(folder)
    else:
        model.generation_config = GenerationConfig(**{**_suppressed(ids, config.vocab_size), **parts.generation})
        complete_generation_config(model.generation_config, config, tokenizer)
    return model.eval()


def _precision(weights: dict[str, torch.Tensor]) -> torch.dtype:
    """That of the weights, if they have one: float32 for those that were quantised."""
    found = {weight.dtype for weight in weights.values()}
    return found.pop() if len(found) == 1 else torch.float32


def _suppressed(ids: dict[str, int], vocabulary: int) -> dict[str, list[int]]:
    """What openai's decoding never writes, and never begins with."""
    table = NON_SPEECH_TOKENS if ids[END] == 50256 else NON_SPEECH_TOKENS_MULTI
    control = [ids[f"<|{name}|>"] for name in _CONTROL if f"<|{name}|>" in ids]
    if vocabulary < 51864:  # not openai's: the table is not of these tokens
        return {"suppress_tokens": sorted(control), "begin_suppress_tokens": [ids[END]]}
    words = [token for token in table if token < ids[END]]
    return {"suppress_tokens": [*words, *sorted(control)], "begin_suppress_tokens": [220, ids[END]]}


def _extractor(config: WhisperConfig) -> WhisperFeatureExtractor:
    return WhisperFeatureExtractor(
        feature_size=config.num_mel_bins, chunk_length=config.max_source_positions * 2 // 100
    )
