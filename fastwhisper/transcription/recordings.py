"""Transcripts of files: which files, in which batches, under which names."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.audio import AUDIO_SUFFIXES, check_audio, load_audio
from ..errors import InputError
from .decoding import GenerationOptions, generate_transcripts, window_seconds
from .transcripts import Transcript

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Recording:
    """Audio to transcribe, checked.

    Args:
        name (`str`): how the user called it.
        source (`Path` or `bytes`): what `load_audio` reads.
        place (`Path`): relative path of its transcript, without the suffix of a format.
        duration (`float`): seconds.
    """

    name: str
    source: Path | bytes
    place: Path
    duration: float


def find_recordings(names: Sequence[str], standard_input: BinaryIO) -> list[Recording]:
    """Look up files, folders (with all below them, by suffix) and standard input (`-`), and check the audio of each.

    Raises:
        InputError: for the first that does not exist or cannot be decoded, and for a folder without audio.
    """
    recordings = []
    for name in names:
        path = Path(name)
        if name == STANDARD_INPUT:
            recordings.append(_standard_input(standard_input))
        elif path.is_dir():
            recordings += [_recording(file, file.relative_to(path)) for file in _audio_below(path)]
        elif path.is_file():
            recordings.append(_recording(path, Path(path.name)))
        else:
            raise InputError(f"there is no file {name}")
    return recordings


def transcribe_recordings(
    model: WhisperForConditionalGeneration,
    processor: WhisperProcessor,
    recordings: Sequence[Recording],
    options: GenerationOptions,
) -> Iterator[tuple[Recording, Transcript]]:
    """Transcripts in the order of the recordings; those that fit the window in batches, longer ones alone."""
    window = window_seconds(model, processor)
    for batch in _batches(recordings, window, options.batch_size):
        clips = [load_audio(recording.source) for recording in batch]
        yield from zip(batch, generate_transcripts(model, processor, clips, options), strict=True)


def output_paths(recordings: Sequence[Recording], folder: Path, formats: Sequence[str]) -> dict[Recording, list[Path]]:
    """The files to write, one a format, for each recording.

    Raises:
        InputError: where two recordings would be written to one file.
    """
    owners: dict[Path, str] = {}
    paths: dict[Recording, list[Path]] = {}
    for recording in recordings:
        paths[recording] = [folder / recording.place.with_name(f"{recording.place.name}.{kind}") for kind in formats]
        for path in paths[recording]:
            if path in owners:
                raise InputError(f"{owners[path]} and {recording.name} would both be written to {path}")
            owners[path] = recording.name
    return paths


def _batches(recordings: Sequence[Recording], window: float, size: int) -> Iterator[list[Recording]]:
    batch: list[Recording] = []
    for recording in recordings:
        long = recording.duration > window
        if batch and (long or len(batch) == size):
            yield batch
            batch = []
        if long:
            yield [recording]
        else:
            batch.append(recording)
    if batch:
        yield batch


def _standard_input(stream: BinaryIO) -> Recording:
    audio = stream.read()
    if not audio:
        raise InputError("standard input is empty; pipe an audio file into it")
    return Recording("standard input", audio, Path("stdin"), _checked_duration(audio, "standard input"))


def _recording(path: Path, place: Path) -> Recording:
    return Recording(str(path), path, place.with_suffix(""), _checked_duration(path, str(path)))


def _checked_duration(source: Path | bytes, name: str) -> float:
    duration = check_audio(source)
    if duration == 0:
        raise InputError(f"{name} is empty: it has no samples")
    return duration


def _audio_below(folder: Path) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        raise InputError(f"the folder {folder} has no audio files; known are {', '.join(sorted(AUDIO_SUFFIXES))}")
    return files
