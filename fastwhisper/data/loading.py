"""Loads a dataset name, folder or object as rows with the columns `audio` and `text`."""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias
from zipfile import BadZipFile

import datasets
import pyarrow as pa
from datasets import Audio, ClassLabel, Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Value
from datasets.exceptions import DatasetsError

from ..errors import InputError, check_positive
from .audio_paths import check_paths, readable_places
from .folders import (
    find_metadata,
    find_splits,
    is_saved_dataset,
    list_audio,
    read_metadata,
    some_of,
    split_by_folder,
    table_folder,
)

logger = logging.getLogger(__name__)

SpeechDataset: TypeAlias = Dataset | IterableDataset
DatasetSource: TypeAlias = str | os.PathLike | SpeechDataset | DatasetDict | IterableDatasetDict

# What `datasets` raises for files that are broken, and for scripts, which it does not run (RuntimeError).
_UNLOADABLE = (ValueError, OSError, RuntimeError, LookupError, TypeError, BadZipFile, DatasetsError)
# Deeper columns are kept as JSON: Arrow and datasets walk through types by recursion.
_DEEPEST = 20
TEXT_TYPES = ("string", "large_string", "null")


def load_speech_dataset(
    source: DatasetSource,
    *,
    dataset_config: str | None = None,
    split: str | None = None,
    audio_column: str = "audio",
    text_column: str = "text",
    streaming: bool = False,
    limit: int | None = None,
    require_text: bool = True,
) -> SpeechDataset:
    r"""Load a speech dataset whose audio is decoded by `load_audio`, never by torchcodec.

    Args:
        source (`DatasetSource`):
            A dataset on the Hub; a folder with metadata.csv, .tsv or .jsonl whose column `file`, `file_name`, `path`
            or `audio` names the audio files, relative to the folder or to its sub-folder `wav`, `flac` or `audio`; a
            folder with only audio files (with `require_text=False`); a folder written by `save_to_disk`, or any other
            that `datasets.load_dataset` reads; or a dataset object. Metadata in your own folder may name files
            anywhere (`../`, absolute paths, links); metadata from the Hub may only name files of its own dataset.
        dataset_config (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*):
            Needed if there are several. A folder with metadata has the splits of its column `split`, or those of
            the folders that hold all its files, for example `train/` and `test/`, or just `train`; a folder without
            has those of its sub-folders with metadata.
        audio_column (`str`, *optional*, defaults to `"audio"`):
            Column that becomes `audio`.
        text_column (`str`, *optional*, defaults to `"text"`):
            Column that becomes `text`.
        streaming (`bool`, *optional*, defaults to `False`):
            Return an `IterableDataset`; one on the Hub is then not downloaded first.
        limit (`int`, *optional*):
            Only the first rows.
        require_text (`bool`, *optional*, defaults to `True`):
            Whether a dataset without text is an error.

    Returns:
        `Dataset` or `IterableDataset`: `audio` (undecoded), `text` if there is any, and all other columns; classes
        in `text` and `language` have their names. Files that are missing or unreadable are left to `usable_rows`.

    Raises:
        InputError: for a wrong path, configuration, split or column, naming those that exist, or if no rows are left.
    """
    if limit is not None:
        check_positive(limit=limit)
    label = "the dataset" if not isinstance(source, str | os.PathLike) else os.fspath(source)
    dataset = _open_source(source, dataset_config, split, (audio_column, text_column), streaming, require_text)
    if isinstance(dataset, DatasetDict | IterableDatasetDict):
        dataset = dataset[chosen_split(list(dataset), split, label)]
    if not isinstance(dataset, Dataset | IterableDataset):
        raise InputError(f"a {type(dataset).__name__} is not a dataset")
    dataset = _rename_columns(dataset, label, audio_column, text_column, require_text)
    if isinstance(source, str | os.PathLike):
        places = readable_places(os.fspath(source), is_folder=Path(source).expanduser().exists())
        dataset = dataset if places is None else check_paths(dataset, places, label)
    if limit is not None:
        dataset = dataset.take(limit)
    if streaming and isinstance(dataset, Dataset):
        dataset = dataset.to_iterable_dataset()
    return dataset


def chosen_split(splits: Sequence[str], split: str | None, label: str) -> str:
    """The requested split, or the only one.

    Raises:
        InputError: for one that does not exist, or if there are several to choose from; the message names them.
    """
    if split is None and len(splits) == 1:
        return splits[0]
    if split is None:
        raise InputError(f"{label} has the splits {', '.join(splits)}: choose one of them")
    if split not in splits:
        raise InputError(f"{label} has no split {split!r}; it has {', '.join(splits)}")
    return split


def _open_source(
    source: DatasetSource,
    dataset_config: str | None,
    split: str | None,
    audio_and_text: tuple[str, str],
    streaming: bool,
    require_text: bool,
) -> SpeechDataset | DatasetDict | IterableDatasetDict:
    if not isinstance(source, str | os.PathLike):
        return source
    path = Path(source).expanduser()
    if path.is_file():
        if path.stem != "metadata":
            raise InputError(f"{path} is a file; a dataset is a folder, or a name on the Hub")
        path = path.parent
    if not path.is_dir():
        if path.is_absolute() or os.fspath(source).startswith((".", "~")) or len(path.parts) > 2:
            raise InputError(f"there is no folder {path}")
        return _load_by_name(os.fspath(source), dataset_config, split, streaming)
    audio_column = audio_and_text[0]
    if is_saved_dataset(path):
        return _load_saved(path)
    path = table_folder(path)
    if find_metadata(path):
        dataset = _from_columns(read_metadata(path, audio_column), *audio_and_text)
        return _split_by_column(dataset, path) if "split" in dataset.column_names else DatasetDict(train=dataset)
    splits = find_splits(path)
    if splits:
        split = chosen_split(splits, split, str(path))
        columns = read_metadata(path / split, audio_column)
        columns.pop("split", None)
        return DatasetDict({split: _from_columns(columns, *audio_and_text)})
    files = _with_unicode_names(list_audio(path), path)
    if not files:
        return _load_by_name(os.fspath(path), dataset_config, split, streaming)
    if require_text:
        raise InputError(
            f"{path} has {len(files)} audio files and no metadata.csv, metadata.tsv or metadata.jsonl with their text"
        )
    columns = {audio_column: list(map(str, files))}
    folders = split_by_folder([file.relative_to(path) for file in files])
    dataset = _from_columns({**columns, "split": folders} if folders else columns, *audio_and_text)
    return _split_by_column(dataset, path) if folders else DatasetDict(train=dataset)


def _load_by_name(source: str, dataset_config: str | None, split: str | None, streaming: bool) -> SpeechDataset:
    try:
        if split is None:
            split = chosen_split(datasets.get_dataset_split_names(source, dataset_config), None, source)
        return datasets.load_dataset(source, dataset_config, split=split, streaming=streaming)
    except InputError:
        raise
    except _UNLOADABLE as error:
        # What generation fails by is in the cause.
        reason = " ".join(str(error.__cause__ or error).split())
        raise InputError(f"the dataset {source} cannot be loaded: {reason}") from error


def _load_saved(path: Path) -> Dataset | DatasetDict:
    try:
        return datasets.load_from_disk(path)
    except _UNLOADABLE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} was written by save_to_disk, and cannot be loaded: {reason}") from error


def _with_unicode_names(files: list[Path], folder: Path) -> list[Path]:
    """The files whose names a column of strings can hold; a warning names the others."""
    shown = {file: os.fsencode(file).decode("utf-8", errors="replace") for file in files}
    kept = [file for file in files if shown[file] == str(file)]
    if len(kept) < len(files):
        others = some_of(shown[file] for file in files if shown[file] != str(file))
        logger.warning(
            "%s: skipped %d whose names are not UTF-8: %s; rename them", folder, len(files) - len(kept), others
        )
    return kept


def _from_columns(columns: dict[str, list], audio_column: str, text_column: str) -> Dataset:
    columns = {name: _of_one_type(values, name == text_column) for name, values in columns.items()}
    return Dataset.from_dict(columns).cast_column(audio_column, Audio(decode=False))


def _of_one_type(values: list, is_text: bool) -> list:
    """Values that a column can hold. If they are of several types, too large or too deep, non-strings become JSON, or
    `None` in a column of text: such a row has no text."""
    try:
        if _depth(pa.array(values).type) <= _DEEPEST:
            return values
    except (pa.ArrowException, OverflowError, RecursionError):
        pass
    return [
        value if isinstance(value, str) else None if value is None or is_text else json.dumps(value)
        for value in values
    ]


def _depth(type_: pa.DataType) -> int:
    return 1 + max((_depth(type_.field(index).type) for index in range(type_.num_fields)), default=0)


def _split_by_column(dataset: Dataset, path: Path) -> DatasetDict:
    names = dataset["split"][:]
    other = next((name for name in names if not isinstance(name, str) or not name), None)
    if other is not None or None in names:
        raise InputError(f"{path}: the column 'split' holds {other!r}, which is not the name of a split")
    return DatasetDict(
        {
            name: dataset.select([index for index, row_split in enumerate(names) if row_split == name])
            for name in dict.fromkeys(names)
        }
    )


def _rename_columns(
    dataset: SpeechDataset, label: str, audio_column: str, text_column: str, require_text: bool
) -> SpeechDataset:
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise InputError(f"{label} has no rows")
    columns = dataset.column_names
    if columns is None:
        first_row = next(iter(dataset), None)
        if first_row is None:
            raise InputError(f"{label} has no rows")
        columns = list(first_row)
    wanted = {audio_column: "audio", text_column: "text"}
    if not require_text and text_column not in columns:
        del wanted[text_column]
    for column, meaning in wanted.items():
        if column not in columns:
            raise InputError(
                f"{label} has no column {column!r} for the {meaning}; its columns are {', '.join(columns)}"
            )
    features = dataset.features or {}
    audio = features.get(audio_column)
    if isinstance(audio, Audio) and audio.decode:
        dataset = dataset.cast_column(audio_column, Audio(decode=False))
    for column in ("language", *(column for column, target in wanted.items() if target == "text")):
        if isinstance(features.get(column), ClassLabel):
            dataset = _with_class_names(dataset, column)
    text = (dataset.features or {}).get(text_column) if "text" in wanted.values() else None
    if text is not None and not (isinstance(text, Value) and text.dtype in TEXT_TYPES):
        holds = text.dtype if isinstance(text, Value) else type(text).__name__
        raise InputError(f"{label}: the column {text_column!r} holds {holds}, not text")
    changed = {column: target for column, target in wanted.items() if column != target}
    replaced = [target for target in changed.values() if target in columns and target not in wanted]
    if replaced:
        dataset = dataset.remove_columns(replaced)
    return dataset.rename_columns(changed) if changed else dataset


def _with_class_names(dataset: SpeechDataset, column: str) -> SpeechDataset:
    """The dataset with the names of a column's classes instead of their numbers."""
    names = dataset.features[column].names

    def name_of(number: int | None) -> str | None:
        return names[number] if number is not None and 0 <= number < len(names) else None

    if isinstance(dataset, IterableDataset):
        features = Features({**dataset.features, column: Value("string")})
        return dataset.map(lambda row: {column: name_of(row[column])}, features=features)
    # Not `map`, which would write the audio again.
    values = [name_of(number) for number in dataset[column]]
    return dataset.remove_columns(column).add_column(column, values, feature=Value("string"))
