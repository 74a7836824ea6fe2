"""The files that rows name instead of holding audio: which they are, and whether they may be read."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import datasets
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from huggingface_hub import constants

from ..errors import InputError

# Where `hf download --local-dir` keeps its records within the folder.
_RECORDS = Path(".cache", "huggingface", "download")
_REMOTE = ("hf://", "https://", "http://")

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


def audio_paths(dataset: Dataset) -> Iterator[str]:
    """Paths of the files that rows have instead of the audio itself."""
    if "audio" not in dataset.column_names:
        return
    column = dataset.data.column("audio")
    if pa.types.is_struct(column.type):
        fields = [field.name for field in column.type]
        if "path" not in fields:
            return
        paths = pc.struct_field(column, "path")
        if "bytes" in fields:
            paths = pc.if_else(pc.is_null(pc.struct_field(column, "bytes")), paths, None)
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        paths = column
    else:
        return
    yield from (path for chunk in paths.chunks for path in chunk.to_pylist() if path is not None)


def readable_places(source: str, is_folder: bool) -> list[Path] | None:
    """The folders whose files the rows of a dataset may name: what came from the Hub reads what it brought along,
    and nothing else of this machine.

    Args:
        source (`str`): a folder, or a name on the Hub.
        is_folder (`bool`): which of the two.

    Returns:
        `list[Path]`: folders without links; `None` where all files may be named, as by folders of the user's own.
    """
    config = datasets.config
    extracted = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH]
    hub = Path(constants.HF_HUB_CACHE).resolve()
    if not is_folder:
        return [hub, *(Path(place).resolve() for place in extracted)]
    folder = Path(source).resolve()
    if folder.is_relative_to(hub) and folder != hub:
        # A repository, whose snapshots are links to its blobs.
        return [hub / folder.relative_to(hub).parts[0]]
    root = next((place for place in (folder, *folder.parents) if (place / _RECORDS).is_dir()), None)
    return None if root is None else [root]


def check_paths(dataset: AnyDataset, places: list[Path], label: str) -> AnyDataset:
    """A dataset that names no file of this machine but those below some folders; a stream is checked as it goes.

    Raises:
        InputError: if it names another that is there.
    """
    if isinstance(dataset, Dataset):
        for path in audio_paths(dataset):
            _check_path(path, places, label)
        return dataset

    def checked(row: Mapping[str, Any]) -> Mapping[str, Any]:
        audio = row["audio"]
        path = audio.get("path") if isinstance(audio, Mapping) and audio.get("bytes") is None else audio
        if isinstance(path, str):
            _check_path(path, places, label)
        return row

    return dataset.map(checked, features=dataset.features)


def _check_path(path: str, places: list[Path], label: str) -> None:
    # Of a file in an archive, the archive.
    address = path.rpartition("::")[2]
    if address.startswith(_REMOTE):
        return
    local = address.partition("://")[2] or address
    if os.path.isfile(local) and not any(Path(local).resolve().is_relative_to(place) for place in places):
        raise InputError(
            f"{label} came from the Hub and names {path}, which did not: such data may read its own files alone"
        )
