"""The demo's speech: household commands in synthetic voices, as clips and as folders that every verb reads."""

import csv
from pathlib import Path

import numpy as np
import soundfile
from tqdm import tqdm

from ..modeling.waveforms import SAMPLING_RATE
from ..synthetic_speech.commands import sample_command
from ..synthetic_speech.espeak import SyntheticClip, compose_clip

WINDOW_SECONDS = 4
RECORDING_SPEAKERS = 5


def speak(first_clip: int, count: int, variants: list[str], purpose: str, several: bool = True) -> list[SyntheticClip]:
    """Synthesise clips by their numbers, with a progress bar; arguments as for [`compose_clip`]."""
    clips = range(first_clip, first_clip + count)
    return [
        compose_clip(sample_command, clip, variants, WINDOW_SECONDS, several=several)
        for clip in tqdm(clips, desc=f"synthesising {purpose}", unit="clip")
    ]


def write_dataset(folder: Path, clips: list[SyntheticClip]) -> None:
    """Write clips as FLAC files with a metadata.csv into a new folder."""
    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for index, clip in enumerate(clips):
            name = f"{index:04d}.flac"
            soundfile.write(folder / name, clip.samples, SAMPLING_RATE)
            writer.writerow([name, clip.text])


def write_recording(path: Path, first_clip: int, variants: list[str]) -> np.ndarray:
    """Write commands by five speakers as one recording, longer than the model's window. Returns its samples."""
    clips = speak(first_clip, RECORDING_SPEAKERS, variants, "a recording", several=False)
    samples = np.concatenate([clip.samples for clip in clips])
    soundfile.write(path, samples, SAMPLING_RATE)
    return samples
