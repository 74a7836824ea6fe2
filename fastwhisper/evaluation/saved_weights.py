"""The files with a saved model's weights, and a checksum that identifies them."""

import hashlib
import re
from pathlib import Path

_MODEL_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors")


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model, in one file or several, or of an adapter; not those of a self-teacher."""
    models = sorted(path for path in folder.glob("*.safetensors") if _MODEL_WEIGHTS.fullmatch(path.name))
    return models or sorted(folder.glob("adapter_model.safetensors"))


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
