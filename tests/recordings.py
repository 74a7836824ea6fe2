"""Noise that stands for speech, and checkpoints of tiny models."""

from pathlib import Path

import numpy as np
import soundfile
from datasets import Dataset
from transformers import PreTrainedModel, WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer


def noise(seconds: float, seed: int = 0) -> np.ndarray:
    """Float32 samples at 16 kHz whose loudness moves."""
    generator = np.random.default_rng(seed)
    samples = generator.standard_normal(round(16_000 * seconds)) * np.sin(np.arange(round(16_000 * seconds)) / 900)
    return (0.1 * samples).astype(np.float32)


def write_noise(path: Path, seconds: float, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, noise(seconds, seed), 16_000)
    return path


def tiny_processor(tokenizer: WhisperTokenizer, seconds: int = 2) -> WhisperProcessor:
    """The processor of `tiny_whisper`."""
    return WhisperProcessor(WhisperFeatureExtractor(chunk_length=seconds), tokenizer)


def save_checkpoint(model: PreTrainedModel, tokenizer: WhisperTokenizer, folder: Path, seconds: int = 2) -> Path:
    model.save_pretrained(folder)
    tiny_processor(tokenizer, seconds).save_pretrained(folder)
    return folder


def noise_dataset(folder: Path, texts: list[str]) -> Dataset:
    """A row of noise a text, 0.5 s and longer, as paths."""
    paths = [write_noise(folder / f"{index}.wav", 0.5 + 0.2 * index, index) for index in range(len(texts))]
    return Dataset.from_dict({"audio": [{"path": str(path), "bytes": None} for path in paths], "text": texts})


def write_only_words(model: PreTrainedModel, tokenizer: WhisperTokenizer) -> None:
    """Forbid control tokens and halves of letters, which random models are fond of."""
    words = {token for token in range(tokenizer.eos_token_id) if tokenizer.decode([token]).isascii()}
    stamps = set(range(tokenizer.convert_tokens_to_ids("<|0.00|>"), len(tokenizer)))
    allowed = words | stamps | {tokenizer.eos_token_id}
    model.generation_config.suppress_tokens = sorted(set(range(len(tokenizer))) - allowed)
