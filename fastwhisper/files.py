"""Text files that are whole or not there."""

import os
import uuid
from pathlib import Path

from .errors import InputError


def write_whole(path: Path, text: str) -> None:
    """Write a UTF-8 file beside its name and rename it: whoever reads `path` finds the old file or the whole new one.

    A full disk leaves the old file, and nothing beside it.
    """
    # Not the name with something added: that may be as long as the file system allows.
    partial = path.with_name(f".{uuid.uuid4().hex}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Check that a file can be written before the work that fills it begins; makes its folder.

    Raises:
        InputError: where the path is a folder, or its folder cannot be made or written in.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; give the path of a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"the folder {path.parent} cannot be made: {error.strerror}") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"the folder {path.parent} cannot be written in")
