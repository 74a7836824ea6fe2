"""What both model families do on saving: store code with the weights, and record public names of their parts."""

import os
from collections.abc import Callable

_code_writer: Callable[[str | os.PathLike], object] | None = None


def set_code_writer(writer: Callable[[str | os.PathLike], object]) -> None:
    """Hand in the function that writes this package's code into a folder with a `config.json`."""
    # Handed in, not imported: the writer is several rooms above, and this file must also load where the package is not
    # installed. There it is remote code without a writer, and transformers copies the flat files itself.
    global _code_writer
    _code_writer = writer


def write_own_code(folder: str | os.PathLike) -> None:
    """Write this package's code into a folder with a `config.json`; nothing if this file is itself remote code."""
    if _code_writer is not None:
        _code_writer(folder)


def checkpoint_name(name_or_path: str) -> str | None:
    """A checkpoint's Hub name as it is, or the last component of a local folder, to keep local paths out of configs.

    `None` if there is no name, as for a model that was built rather than loaded.
    """
    if os.path.isabs(name_or_path) or os.path.isdir(name_or_path):
        return os.path.basename(os.path.normpath(name_or_path))
    return name_or_path or None


__all__ = ["checkpoint_name", "set_code_writer", "write_own_code"]
