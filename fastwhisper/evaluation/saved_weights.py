"""A checksum that identifies a saved model's weights."""

import hashlib
from pathlib import Path

from ..model_folders import weight_files


def weights_sha256(folder: Path) -> str | None:
    """SHA-256 of the folder's weight files, one after another; `None` if there are none.

    For a single file it is the one that the Hub shows.
    """
    paths = weight_files(folder)
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(2**20):
                digest.update(chunk)
    return digest.hexdigest() if paths else None
