"""Training rows joined, and copies of them at other speeds and with noise, made once so that what models make of them
is kept."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from datasets import Dataset, concatenate_datasets
from transformers import WhisperProcessor

from fastwhisper.data.audio import load_audio
from fastwhisper.data.filtering import UsableRows
from fastwhisper.data.joined_rows import join_rows
from fastwhisper.data.label_encoding import LabelEncoder
from fastwhisper.modeling.waveforms import SAMPLING_RATE

from .config import Augmentation

MOST_TOKENS = 448  # of Whisper's decoder


def with_copies(rows: Dataset, augmentation: Augmentation, folder: Path) -> Dataset:
    """The rows, and behind them their copies, whose audio is written into a folder."""
    made = [rows]
    for copy in range(augmentation.copies):
        paths = []
        for index, row in enumerate(rows):
            draws = np.random.default_rng((augmentation.seed, copy, index))
            path = folder / f"{copy}-{index:06d}.flac"
            paths.append(_written(changed(load_audio(row["audio"]), augmentation, draws), path))
        made.append(_with_audio(rows, paths))
    names = rows.column_names
    return concatenate_datasets([each.select_columns(names) for each in made])


def joined(
    rows: Dataset, augmentation: Augmentation, processor: WhisperProcessor, language: str | None, folder: Path
) -> Dataset:
    """A share of the rows joined with others of their speaker, up to a window, as `--joined_probability` does; the
    audio is written into a folder. Columns but the text are those of the first row."""
    seconds = [len(load_audio(audio)) / SAMPLING_RATE for audio in rows["audio"]]
    made, _ = join_rows(
        UsableRows(rows, Counter(), seconds),  # type: ignore[arg-type]
        LabelEncoder(processor.tokenizer, language),
        processor.feature_extractor.chunk_length,
        MOST_TOKENS,
        augmentation.joined_probability,
        augmentation.seed,
    )
    firsts = [row[0] for row in made.members]
    paths, texts = [], []
    for index in range(len(made)):
        row = made[index]
        paths.append(_written(load_audio(row["audio"]), folder / f"joined-{index:06d}.flac"))
        texts.append(row["text"])
    kept = _with_audio(rows.select(firsts), paths).remove_columns("text").add_column("text", texts)
    return kept.select_columns(rows.column_names)


def _written(samples: np.ndarray, path: Path) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, SAMPLING_RATE)
    return {"path": str(path), "bytes": None}


def _with_audio(rows: Dataset, paths: list[dict[str, Any]]) -> Dataset:
    column: Any = rows.features["audio"]
    return rows.remove_columns("audio").add_column("audio", paths, feature=column)


def changed(samples: np.ndarray, augmentation: Augmentation, draws: np.random.Generator) -> np.ndarray:
    """A clip at a drawn speed, with white noise at a drawn distance below it."""
    speed = draws.uniform(*augmentation.speeds)
    faster = soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE)
    below = 10 ** (-draws.uniform(*augmentation.noise_decibels_below) / 20)
    noise = draws.standard_normal(len(faster)) * np.sqrt(np.mean(np.square(faster))) * below
    return np.clip(faster + noise, -1.0, 1.0).astype(np.float32)
