"""Copies of the training rows at other speeds and with noise, made once so that what models make of them is kept."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from datasets import Dataset, concatenate_datasets

from fastwhisper.data.audio import load_audio
from fastwhisper.modeling.waveforms import SAMPLING_RATE

from .config import Augmentation


def with_copies(rows: Dataset, augmentation: Augmentation, folder: Path) -> Dataset:
    """The rows, and behind them their copies, whose audio is written into a folder."""
    made = [rows]
    for copy in range(augmentation.copies):
        paths = []
        for index, row in enumerate(rows):
            draws = np.random.default_rng((augmentation.seed, copy, index))
            path = folder / f"{copy}-{index:06d}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, changed(load_audio(row["audio"]), augmentation, draws), SAMPLING_RATE)
            paths.append({"path": str(path), "bytes": None})
        column: Any = rows.features["audio"]
        made.append(rows.remove_columns("audio").add_column("audio", paths, feature=column))
    names = rows.column_names
    return concatenate_datasets([each.select_columns(names) for each in made])


def changed(samples: np.ndarray, augmentation: Augmentation, draws: np.random.Generator) -> np.ndarray:
    """A clip at a drawn speed, with white noise at a drawn distance below it."""
    speed = draws.uniform(*augmentation.speeds)
    faster = soxr.resample(samples, SAMPLING_RATE * speed, SAMPLING_RATE)
    below = 10 ** (-draws.uniform(*augmentation.noise_decibels_below) / 20)
    noise = draws.standard_normal(len(faster)) * np.sqrt(np.mean(np.square(faster))) * below
    return np.clip(faster + noise, -1.0, 1.0).astype(np.float32)
