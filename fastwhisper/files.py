"""Write files and folders completely or not at all."""

import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 file under a temporary name and rename it: `path` is always the old file or the complete new one.

    If the disk is full, the old file stays and no temporary file is left.
    """
    # Not `path.name` with a suffix: the name may already be as long as the file system allows.
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A staging folder of the same name to write into: it becomes `path` at the end, and is removed after an error.

    Raises:
        InputError: if `path` exists, or its parent folder is not writable.
    """
    if path.exists():
        raise InputError(f"{path} already exists: choose a new folder or remove it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        staging = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-")
    except OSError as error:
        raise InputError(f"cannot create the folder {path}: {error.strerror}") from error
    with staging as place:
        folder = Path(place) / path.name
        folder.mkdir()
        yield folder
        folder.rename(path)


def check_writable(path: Path) -> None:
    """Check that a file can be written before the work for it starts; creates its folder.

    Raises:
        InputError: if the path is a folder, or its folder cannot be created or written to.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder: give the path of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot create the folder {path.parent}: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"cannot write to the folder {path.parent}")
