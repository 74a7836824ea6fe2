"""Which recordings to transcribe, and under which names: files, folders, standard input."""

import os
import tempfile
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from ..data.audio import AUDIO_SUFFIXES, check_audio
from ..data.folders import list_audio
from ..errors import InputError

STANDARD_INPUT = "-"


@dataclass(frozen=True)
class Recording:
    """Audio to transcribe, with a checked header.

    Args:
        name (`str`): as the user gave it.
        source (`Path` or `bytes`): what `load_audio` reads.
        place (`Path`): relative path of its transcript, without a suffix.
        duration (`float`): seconds.
    """

    name: str
    source: Path | bytes
    place: Path
    duration: float


def find_recordings(
    names: Sequence[str], standard_input: BinaryIO | None = None
) -> tuple[list[Recording], list[tuple[str, InputError]]]:
    """Look up files, folders (with all audio files below them) and standard input (`-`).

    Returns:
        `tuple[list[Recording], list[tuple[str, InputError]]]`: the recordings, in order of name; and whatever
        does not exist, has no audio or cannot be decoded, each with its error.
    """
    recordings: list[Recording] = []
    problems: list[tuple[str, InputError]] = []
    for name in names:
        try:
            sources = _sources(name, standard_input)
        except InputError as error:
            problems.append((_shown(name), error))
            continue
        for source, place in sources:
            shown = "standard input" if isinstance(source, bytes) else _shown(source)
            try:
                recordings.append(Recording(shown, source, place.with_suffix(""), _checked_duration(source, shown)))
            except InputError as error:
                problems.append((shown, error))
    return recordings, problems


def output_paths(recordings: Sequence[Recording], folder: Path, formats: Sequence[str]) -> dict[Recording, list[Path]]:
    """The files to write, one per format, for each recording.

    Raises:
        InputError: if two recordings would be written to one file.
    """
    owners: dict[Path, Recording] = {}
    paths: dict[Recording, list[Path]] = {}
    for recording in recordings:
        paths[recording] = [folder / recording.place.with_name(f"{recording.place.name}.{kind}") for kind in formats]
        for path in paths[recording]:
            # Two folders may be the same through a link.
            owner = owners.setdefault(path.parent.resolve() / path.name, recording)
            _check_owner(owner, recording, path)
    _check_alike(owners)
    return paths


def public_name(recording: str, given: Sequence[str | os.PathLike]) -> str:
    """The name of a recording for what is passed on: as the user gave it; of an absolute path only what is below the
    folder that was given, and that folder's name.

    Args:
        recording (`str`): name of a recording that was found.
        given (`Sequence[str]`): the files and folders that it was found in.
    """
    path = Path(recording)
    if not path.is_absolute():
        return recording
    above = next((Path(name).parent for name in given if path.is_relative_to(name)), path.parent)
    return path.relative_to(above).as_posix()


def _sources(name: str, standard_input: BinaryIO | None) -> list[tuple[Path | bytes, Path]]:
    """What `load_audio` reads, and the relative path of the transcript, for everything that a name stands for."""
    path = Path(name)
    if name == STANDARD_INPUT and standard_input is not None:
        audio = standard_input.read()
        if not audio:
            raise InputError("standard input is empty: pipe an audio file into it")
        return [(audio, Path("stdin"))]
    if path.is_dir():
        files = list_audio(path)
        if not files:
            known = ", ".join(sorted(AUDIO_SUFFIXES))
            raise InputError(f"the folder {_shown(name)} has no audio files; supported are {known}")
        return [(file, file.relative_to(path)) for file in files]
    if not path.is_file():
        raise InputError(f"there is no file {_shown(name)}")
    return [(path, Path(path.name))]


def _checked_duration(source: Path | bytes, name: str) -> float:
    duration = check_audio(source)
    if duration == 0:
        raise InputError(f"{name} is empty: it has no samples")
    return duration


def _shown(name: str | Path) -> str:
    """A name that can be printed and written as UTF-8: file names may be any bytes."""
    return os.fsencode(name).decode("utf-8", errors="replace")


def _check_alike(owners: dict[Path, Recording]) -> None:
    """Look for names that a file system may treat as one: they differ only in case or in how accents are written."""
    alike: dict[str, Path] = {}
    for path, recording in owners.items():
        other = alike.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), path)
        if other != path and _is_one_file(other, path):
            _check_owner(owners[other], recording, path)


def _is_one_file(first: Path, second: Path) -> bool:
    """Whether the file system treats two names as one, tested with a temporary file."""
    place = next(parent for parent in first.parents if parent.is_dir())
    with tempfile.TemporaryDirectory(dir=place) as folder:
        (Path(folder) / first.name).touch()
        return (Path(folder) / second.name).exists()


def _check_owner(owner: Recording, recording: Recording, path: Path) -> None:
    if owner.source != recording.source:
        raise InputError(f"{owner.name} and {recording.name} would both be written to {path}; rename one of them")
