"""Local folders of audio files, with or without a table of metadata."""

import csv
import io
import json
import logging
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..errors import InputError
from .audio import AUDIO_SUFFIXES, UNREADABLE_SUFFIXES

logger = logging.getLogger(__name__)

METADATA_NAMES = ("metadata.jsonl", "metadata.csv", "metadata.tsv")
PATH_COLUMNS = ("file", "file_name", "path", "audio")
AUDIO_FOLDERS = ("", "wav", "wavs", "flac", "audio", "clips")
SPLIT_NAMES = frozenset(
    ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval", "evaluation")
)
# Names per message: the rest are counted.
NAMED = 10


def find_metadata(folder: Path) -> Path | None:
    """The folder's metadata table, if it has one."""
    return next((folder / name for name in METADATA_NAMES if (folder / name).is_file()), None)


def table_folder(folder: Path) -> Path:
    """The folder itself, or its sub-folder `data`, as in repositories on the Hub, where the tables lie only there."""
    inner = folder / "data"
    if find_metadata(folder) is None and inner.is_dir() and (find_metadata(inner) or find_splits(inner)):
        return inner
    return folder


def find_splits(folder: Path) -> list[str]:
    """Names of the sub-folders with their own metadata table, sorted."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and find_metadata(path))


def is_saved_dataset(folder: Path) -> bool:
    """Whether the folder was written by `save_to_disk` of `datasets`."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def list_audio(folder: Path) -> list[Path]:
    """All audio files in the folder and below it, sorted; hidden files and folders (`.name`) are skipped.

    Links to folders are followed, each folder once. A warning names audio and video files of unsupported formats,
    and sub-folders that cannot be opened. Broken links are listed: reading them raises the error.

    Raises:
        InputError: for a folder that cannot be opened.
    """
    found, passed_over = [], []
    seen = {os.path.realpath(folder)}

    def passed(error: OSError) -> None:
        if error.filename == str(folder):
            raise InputError(f"the folder {folder} cannot be read: {error.strerror}") from error
        passed_over.append(f"{Path(error.filename).relative_to(folder)} ({error.strerror})")

    def is_new(path: str) -> bool:
        real = os.path.realpath(path)
        new = real not in seen
        seen.add(real)
        return new

    for place, folders, files in os.walk(folder, onerror=passed, followlinks=True):
        # Sorted, with links last: a folder is listed under its own name where it has one.
        folders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))
        folders[:] = [name for name in folders if not name.startswith(".") and is_new(os.path.join(place, name))]
        for name in files:
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.suffix.lower() in AUDIO_SUFFIXES:
                found.append(path)
            elif path.suffix.lower() in UNREADABLE_SUFFIXES:
                passed_over.append(str(path.relative_to(folder)))
    if passed_over:
        logger.warning(
            "%s: skipped %d that cannot be read: %s; convert files of other formats to FLAC",
            *(folder, len(passed_over), some_of(sorted(passed_over))),
        )
    return sorted(found)


def some_of(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def read_metadata(folder: Path, audio_column: str = "audio") -> dict[str, list[Any]]:
    """The columns of the folder's metadata; the one that names the files becomes `audio_column`, with full paths.

    A file that does not exist keeps its path, and a row that names none has `None`: what happens to them is decided
    where the audio is read. A table without a column `split` whose files are all in folders like `train` and `test`
    gets one.

    Raises:
        InputError: for a table that cannot be read, that does not name the files, or none of whose files exist.
    """
    table = find_metadata(folder)
    if table is None:
        raise InputError(f"{folder} has none of {', '.join(METADATA_NAMES)}")
    candidates = PATH_COLUMNS if audio_column == "audio" else (audio_column,)
    text = _read_text(table)
    is_json = table.suffix == ".jsonl"
    rows: list[tuple[int, Mapping[str, Any]]]
    rows = list(_json_rows(text, table) if is_json else _table_rows(text, table, candidates))
    if not rows:
        raise InputError(f"{table} has no rows")
    columns = list(dict.fromkeys(column for _, row in rows for column in row))
    path_column = next((column for column in columns if column in candidates), None)
    if path_column is None:
        raise InputError(
            f"{table} has no column {' or '.join(candidates)} that names the audio files; "
            f"its columns are {', '.join(columns)}"
        )
    values: dict[str, list[Any]] = {column: [row.get(column) for _, row in rows] for column in columns}
    names = values.pop(path_column)
    # Another column of that name would take the place of the files.
    values.pop(audio_column, None)
    paths = [_locate(folder, name) for name in names]
    if not any(path is not None and ("://" in path or os.path.isfile(path)) for path in paths):
        missing = "it names no audio file" if paths[0] is None else f"there is no audio file {names[0]} in {folder}"
        raise InputError(f"{table} line {rows[0][0]}: {missing}")
    if "split" not in values:
        splits = split_by_folder([None if path is None else name for name, path in zip(names, paths, strict=True)])
        values = {**values, "split": splits} if splits else values
    return {audio_column: paths, **values}


def split_by_folder(names: Sequence[str | Path | None]) -> list[str] | None:
    """The split of each file by its folder, `train/a.wav` or `audio/train/a.wav`, if all files have one.

    Args:
        names (`Sequence[str | Path | None]`): relative paths; a missing one gets the split of the first.
    """
    splits = [
        None if name is None else next(filter(SPLIT_NAMES.__contains__, Path(name).parts[:2]), "") for name in names
    ]
    named = [split for split in splits if split is not None]
    return [split or named[0] for split in splits] if named and all(named) else None


def _read_text(table: Path) -> str:
    """The text of a table: UTF-8, or UTF-16 with a byte order mark, as spreadsheets write it.

    Raises:
        InputError: for another encoding, which would have to be guessed; the message names the line.
    """
    try:
        content = table.read_bytes()
    except OSError as error:
        raise InputError(f"{table} cannot be read: {error.strerror}") from error
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        raise InputError(f"{table} line {line} is not {'UTF-16' if utf16 else 'UTF-8'}: save it as UTF-8") from error
    if "\0" in text:
        line = 1 + text.count("\n", 0, text.index("\0"))
        raise InputError(f"{table} line {line} has a NUL character: save it as UTF-8")
    return text


def _table_rows(text: str, table: Path, path_columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str | None]]]:
    """Line numbers and rows of a CSV or TSV."""
    tabs = table.suffix == ".tsv"
    delimiter = _delimiter(text, "\t,;|" if tabs else ",;\t|", path_columns)
    # In tab-separated text a quotation mark is just text, as in Common Voice.
    quoting: Any = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    end = 0
    try:
        header = [name.strip() for name in next(reader, [])]
        twice = next((name for name in header if name and header.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"{table} has two columns named {twice!r}")
        end = reader.line_num
        for row in reader:
            line, end = end + 1, reader.line_num
            if len(row) > len(header):
                raise InputError(f"{table} line {line} has more fields than the header")
            if row:
                # Spreadsheets end in columns without a name, and pandas begins with one that counts the rows.
                # An empty cell is a missing value: a text that is empty on purpose is for JSON Lines.
                found = {name: value or None for name, value in zip_longest(header, row) if name}
                if end > line:
                    place = next((index for index, name in enumerate(header) if name in path_columns), None)
                    _check_swallowed(found, place, delimiter, table, line)
                yield line, found
    except csv.Error as error:
        raise InputError(f"{table} line {end + 1} cannot be read: {error}") from error


def _check_swallowed(row: Mapping[str, str | None], place: int | None, delimiter: str, table: Path, line: int) -> None:
    """Look for rows within a field of several lines: two marks that were never closed make one text of all between.

    Raises:
        InputError: if a line within a field names an audio file that is there, in the place of its column.
    """
    for within in (part for field in row.values() if field for part in field.splitlines()[1:]):
        cells = within.split(delimiter)
        path = None if place is None or place >= len(cells) else _locate(table.parent, cells[place].strip('"'))
        if path is not None and os.path.isfile(path):
            raise InputError(f"{table} line {line} has a quotation mark that is not closed before {Path(path).name}")


def _delimiter(text: str, known: str, path_columns: Iterable[str]) -> str:
    """The delimiter: the first one with which a column of the header names the files, or the usual one."""
    header = text.lstrip("\r\n").splitlines()[:1]
    for delimiter in known:
        names = next(csv.reader(header, delimiter=delimiter), [])
        if not {name.strip() for name in names}.isdisjoint(path_columns):
            return delimiter
    return known[0]


def _json_rows(text: str, table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(io.StringIO(text), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=_with_names_once)
            if not isinstance(row, dict):
                raise InputError("is not a JSON object")
            json.dumps(row, ensure_ascii=False).encode()
        except InputError as error:
            raise InputError(f"{table} line {number} {error}") from error
        except RecursionError as error:
            raise InputError(f"{table} line {number} is nested too deep") from error
        except UnicodeEncodeError as error:
            raise InputError(f"{table} line {number} has half a character (a lone surrogate)") from error
        except ValueError as error:  # no JSON, and integers of thousands of digits
            raise InputError(f"{table} line {number} is not JSON: {error}") from error
        yield number, row


def _with_names_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise InputError(f"has {next(name for name in names if names.count(name) > 1)!r} twice")
    return found


def _locate(folder: Path, name: Any) -> str | None:
    """Where a file named in the metadata is, or would be; an address as it is, `None` if it has no name."""
    if not isinstance(name, str) or not name.strip():
        return None
    if "://" in name:
        return name
    # macOS stores letters and their accents separately, and Windows has other slashes.
    spellings = (name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name), name.replace("\\", "/"))
    for spelling in dict.fromkeys(spellings):
        for sub_folder in AUDIO_FOLDERS:
            path = folder / sub_folder / spelling
            # Not `Path.is_file`, which fails where a name is too long.
            if os.path.isfile(path):
                return str(path.resolve())
    return str(folder / name)
