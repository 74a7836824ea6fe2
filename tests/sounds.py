"""Small audio files for tests."""

import csv
from pathlib import Path

import numpy as np
import soundfile


def tone(seconds: float = 0.5, sampling_rate: int = 16_000, frequency: float = 440.0) -> np.ndarray:
    """A sine of half amplitude: float32 of shape (samples,)."""
    times = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (0.5 * np.sin(2 * np.pi * frequency * times)).astype(np.float32)


def write_tone(path: Path, seconds: float = 0.5, sampling_rate: int = 16_000, frequency: float = 440.0) -> str:
    soundfile.write(path, tone(seconds, sampling_rate, frequency), sampling_rate)
    return str(path)


def write_nan(path: Path) -> str:
    """A float WAV file with one sample that is not a number."""
    samples = tone()
    samples[100] = np.nan
    soundfile.write(path, samples, 16_000, subtype="FLOAT")
    return str(path)


def write_torn(path: Path) -> str:
    """The first half of a FLAC file."""
    soundfile.write(path, tone(2.0), 16_000, format="FLAC")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return str(path)


def write_endless(path: Path) -> str:
    """A FLAC file whose header promises years."""
    soundfile.write(path, tone(), 16_000, format="FLAC")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F  # the length is the last 36 bits of what follows the rate
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    return str(path)


def write_one_sample(path: Path) -> str:
    """A WAV file of which nothing is left at 16 kHz."""
    return write_tone(path, 1 / 48_000, sampling_rate=48_000)


def write_noise_bytes(path: Path) -> str:
    """A file that is no audio at all."""
    path.write_bytes(b"this is not audio" * 10)
    return str(path)


def write_speech_folder(folder: Path, seconds: list[float], texts: list[str | None] | None = None) -> Path:
    """A folder with metadata.csv and one tone a row, each of its own frequency."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = texts or [f"sentence {index}" for index in range(len(seconds))]
    with (folder / "metadata.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "text", "speaker"])
        for index, (length, text) in enumerate(zip(seconds, texts, strict=True)):
            write_tone(folder / f"{index}.wav", length, frequency=200 + 50 * index)
            table.writerow([f"{index}.wav", text, f"speaker {index % 2}"])
    return folder
