"""Local folders of audio files, with or without a metadata table."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import InputError
from .audio import AUDIO_SUFFIXES

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
PATH_COLUMNS = ("file", "file_name", "path", "audio")
AUDIO_FOLDERS = ("", "wav", "flac", "audio")


def find_metadata(folder: Path) -> Path | None:
    """The folder's metadata table, if it has one."""
    return next((folder / name for name in METADATA_NAMES if (folder / name).is_file()), None)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets` wrote the folder with `save_to_disk`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def list_audio(folder: Path) -> list[str]:
    """Paths of all audio files in the folder and below it, sorted."""
    return sorted(str(path) for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES)


def read_metadata(folder: Path, audio_column: str = "audio") -> dict[str, list[Any]]:
    """The columns of the folder's metadata; the one that names the files becomes `audio_column`, with full paths.

    Raises:
        InputError: for a table that cannot be read, that does not name the files, or names one that does not exist.
    """
    table = find_metadata(folder)
    if table is None:
        raise InputError(f"{folder} has none of {', '.join(METADATA_NAMES)}")
    try:
        rows = list(_read_rows(table))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{table} cannot be read: {error}") from error
    if not rows:
        raise InputError(f"{table} has no rows")
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    candidates = PATH_COLUMNS if audio_column == "audio" else (audio_column,)
    path_column = next((column for column in columns if column in candidates), None)
    if path_column is None:
        raise InputError(
            f"{table} has no column {' or '.join(candidates)} that names the audio files; "
            f"its columns are {', '.join(columns)}"
        )
    values: dict[str, list[Any]] = {column: [row.get(column) for _, row in rows] for column in columns}
    paths = [_locate(folder, row.get(path_column), f"{table} line {line}") for line, row in rows]
    del values[path_column]
    return {audio_column: paths, **values}


def _read_rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        if table.suffix == ".jsonl":
            yield from _read_json_lines(file, table)
            return
        # A quotation mark in tab-separated text is text, as in Common Voice.
        quoting: Any = csv.QUOTE_NONE if table.suffix == ".tsv" else csv.QUOTE_MINIMAL
        reader = csv.DictReader(file, delimiter="\t" if table.suffix == ".tsv" else ",", quoting=quoting)
        for row in reader:
            if None in row:
                raise InputError(f"{table} line {reader.line_num} has more fields than the header")
            yield reader.line_num, row


def _read_json_lines(lines: Iterator[str], table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(f"{table} line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise InputError(f"{table} line {number} is not a JSON object")
        yield number, row


def _locate(folder: Path, file: Any, place: str) -> str:
    if not isinstance(file, str) or not file:
        raise InputError(f"{place} names no audio file")
    for sub_folder in AUDIO_FOLDERS:
        path = folder / sub_folder / file
        if path.is_file():
            return str(path.resolve())
    raise InputError(f"{place}: there is no audio file {file} in {folder}")
