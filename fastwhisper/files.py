"""Write files and folders completely or not at all, and keep a second run out of a folder."""

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from .errors import InputError

if TYPE_CHECKING:
    from accelerate import PartialState

LOCK_NAME = ".lock"


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


def sync(folder: Path) -> None:
    """Have a folder and all in it on the disk before the next rename, whatever becomes of the machine's power."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
    _sync_names(folder)


def _sync_names(folder: Path) -> None:
    if os.name != "posix":  # elsewhere a folder cannot be opened
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def put_in_place(folder: Path, place: Path) -> None:
    """Rename a whole folder; what was at its place is gone."""
    aside = folder.with_name(f"{folder.name}.replaced")
    if place.exists():
        place.rename(aside)
    folder.rename(place)
    _sync_names(place.parent)
    shutil.rmtree(aside, ignore_errors=True)


def move_files(folder: Path, place: Path, last: str) -> None:
    """Move the files of a folder into another, each as a whole, `last` after all others."""
    for path in sorted(folder.iterdir(), key=lambda path: path.name == last):
        if path.is_dir() and (place / path.name).exists():
            shutil.rmtree(place / path.name)
        os.replace(path, place / path.name)


@contextmanager
def held_folder(folder: Path, state: "PartialState") -> Iterator[None]:
    """Hold a folder, which is made, against any other run; the processes of one launch hold it together.

    A process that dies lets go of it. A folder that was made for it and is empty in the end is gone.

    Raises:
        InputError: on every process, if another run holds it or it cannot be written in.
    """
    from accelerate.utils import broadcast_object_list

    lock = FileLock(folder / LOCK_NAME, blocking=False)
    refusal: list[str | None] = [None]
    new = not folder.exists()
    if state.is_main_process:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except Timeout:
            refusal = [f"another run writes into {folder}: wait for its end, or choose another folder"]
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            refusal = [f"the folder {folder} cannot be written in: {error.strerror}"]
    broadcast_object_list(refusal)
    if refusal[0] is not None:
        raise InputError(refusal[0])
    try:
        yield
    finally:
        if state.is_main_process:
            # While it is held; filelock refuses to lock a file that is gone.
            (folder / LOCK_NAME).unlink(missing_ok=True)
            lock.release()
            if new and not any(folder.iterdir()):
                folder.rmdir()
