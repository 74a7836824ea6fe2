"""From a dataset name, a folder or a dataset object to rows with the columns `audio` and `text`."""

import os
from pathlib import Path
from typing import TypeAlias

import datasets
from datasets import Audio, Dataset, DatasetDict, IterableDataset, IterableDatasetDict

from ..errors import InputError
from .folders import find_metadata, is_saved_dataset, list_audio, read_metadata

SpeechDataset: TypeAlias = Dataset | IterableDataset
DatasetSource: TypeAlias = str | os.PathLike | SpeechDataset | DatasetDict | IterableDatasetDict

TEXT_TYPES = ("string", "large_string", "null")


def load_speech_dataset(
    source: DatasetSource,
    *,
    name: str | None = None,
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
            folder of audio files alone (with `require_text=False`); a folder written by `save_to_disk`, or any other
            that `datasets.load_dataset` reads; or a dataset object.
        name (`str`, *optional*):
            Configuration of a dataset on the Hub.
        split (`str`, *optional*):
            Needed where there are several. A folder with metadata has the splits of its column `split`, or of its
            sub-folders, or `train` alone.
        audio_column (`str`, *optional*, defaults to `"audio"`):
            Column that becomes `audio`.
        text_column (`str`, *optional*, defaults to `"text"`):
            Column that becomes `text`.
        streaming (`bool`, *optional*, defaults to `False`):
            Return an `IterableDataset`; one on the Hub is then not downloaded first.
        limit (`int`, *optional*):
            The first rows only.
        require_text (`bool`, *optional*, defaults to `True`):
            Whether a dataset without text is an error.

    Returns:
        `Dataset` or `IterableDataset`: `audio` (undecoded), `text` where there is any, and all other columns.

    Raises:
        InputError: for a wrong path, name, split or column, naming those that exist, and where no rows are left.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit={limit} leaves no rows: it must be at least 1")
    label = "the dataset" if not isinstance(source, str | os.PathLike) else os.fspath(source)
    dataset = _select_split(_open_source(source, name, split, audio_column, streaming, require_text), split, label)
    dataset = _rename_columns(dataset, label, audio_column, text_column, require_text)
    if limit is not None:
        dataset = dataset.take(limit)
    if streaming and isinstance(dataset, Dataset):
        dataset = dataset.to_iterable_dataset()
    return dataset


def _open_source(
    source: DatasetSource, name: str | None, split: str | None, audio_column: str, streaming: bool, require_text: bool
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
        return _load_by_name(os.fspath(source), name, split, streaming)
    if is_saved_dataset(path):
        return datasets.load_from_disk(path)
    if split is not None and find_metadata(path) is None and find_metadata(path / split):
        return DatasetDict({split: _from_columns(read_metadata(path / split, audio_column), audio_column)})
    if find_metadata(path):
        dataset = _from_columns(read_metadata(path, audio_column), audio_column)
        return _split_by_column(dataset) if "split" in dataset.column_names else DatasetDict(train=dataset)
    files = list_audio(path)
    if not files:
        return _load_by_name(os.fspath(path), name, split, streaming)
    if require_text:
        raise InputError(
            f"{path} has {len(files)} audio files and no metadata.csv, metadata.tsv or metadata.jsonl with their text"
        )
    return DatasetDict(train=_from_columns({audio_column: files}, audio_column))


def _load_by_name(source: str, name: str | None, split: str | None, streaming: bool) -> SpeechDataset:
    try:
        if split is None:
            splits = datasets.get_dataset_split_names(source, name)
            if len(splits) > 1:
                raise InputError(f"{source} has the splits {', '.join(splits)}: choose one of them")
            split = splits[0]
        return datasets.load_dataset(source, name, split=split, streaming=streaming)
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"the dataset {source} cannot be loaded: {' '.join(str(error).split())}") from error


def _from_columns(columns: dict[str, list], audio_column: str) -> Dataset:
    return Dataset.from_dict(columns).cast_column(audio_column, Audio(decode=False))


def _split_by_column(dataset: Dataset) -> DatasetDict:
    names = dataset["split"][:]
    return DatasetDict(
        {
            name: dataset.select([index for index, row_split in enumerate(names) if row_split == name])
            for name in dict.fromkeys(names)
        }
    )


def _select_split(
    source: SpeechDataset | DatasetDict | IterableDatasetDict, split: str | None, label: str
) -> SpeechDataset:
    if isinstance(source, Dataset | IterableDataset):
        return source
    if not isinstance(source, DatasetDict | IterableDatasetDict):
        raise InputError(f"a {type(source).__name__} is not a dataset")
    splits = ", ".join(map(str, source))
    if split is None and len(source) == 1:
        return next(iter(source.values()))
    if split is None:
        raise InputError(f"{label} has the splits {splits}: choose one of them")
    if split not in source:
        raise InputError(f"{label} has no split {split!r}; there is {splits}")
    return source[split]


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
    feature = dataset.features[audio_column] if dataset.features else None
    if isinstance(feature, Audio) and feature.decode:
        dataset = dataset.cast_column(audio_column, Audio(decode=False))
    if "text" in wanted.values() and dataset.features and dataset.features[text_column].dtype not in TEXT_TYPES:
        raise InputError(f"{label}: the column {text_column!r} holds {dataset.features[text_column].dtype}, not text")
    changed = {column: target for column, target in wanted.items() if column != target}
    replaced = [target for target in changed.values() if target in columns and target not in wanted]
    if replaced:
        dataset = dataset.remove_columns(replaced)
    return dataset.rename_columns(changed) if changed else dataset
