"""The demo's speech: hotel requests in synthetic voices, as clips and as folders that every verb reads."""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..modeling.waveforms import SAMPLING_RATE
from ..synthetic_speech.espeak import SyntheticClip
from ..synthetic_speech.hotel import compose_request

WINDOW_SECONDS = 4
RECORDING_SPEAKERS = 5


def speak(first_clip: int, count: int, variants: list[str], purpose: str, several: bool = True) -> list[SyntheticClip]:
    """Synthesise clips by their numbers, with a progress bar; arguments as for [`compose_request`]."""
    clips = range(first_clip, first_clip + count)
    return [
        compose_request(clip, variants, WINDOW_SECONDS, several=several)
        for clip in tqdm(clips, desc=f"synthesising {purpose}", unit="clip")
    ]


def write_dataset(folder: Path, clips: Sequence[SyntheticClip]) -> None:
    """Write clips as FLAC files with a metadata.csv into a new folder."""
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text", "speaker"])
        for index, clip in enumerate(clips):
            name = f"{index:04d}.flac"
            soundfile.write(folder / name, clip.samples, SAMPLING_RATE)
            writer.writerow([name, clip.text, clip.speaker])


def write_recording(path: Path, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Write clips one after the other as one recording, longer than the model's window. Returns its samples."""
    samples = np.concatenate(clips)
    soundfile.write(path, samples, SAMPLING_RATE)
    return samples
