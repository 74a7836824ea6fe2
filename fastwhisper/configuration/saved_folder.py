"""What both model families do where they are saved: code beside the weights, public names of their parts."""

import os
from collections.abc import Callable

_code_writer: Callable[[str | os.PathLike], object] | None = None


def set_code_writer(writer: Callable[[str | os.PathLike], object]) -> None:
    """Hand in the function that writes this package's code into a folder with a `config.json`."""
    # Handed in, not imported: the writer lies rooms above, and this file must also load where the package is not
    # installed. There it is remote code with no writer, and transformers copies the flat files by itself.
    global _code_writer
    _code_writer = writer


def write_own_code(folder: str | os.PathLike) -> None:
    """Write this package's code into a folder with a `config.json`; nothing where this file is itself remote code."""
    if _code_writer is not None:
        _code_writer(folder)


def checkpoint_name(name_or_path: str) -> str | None:
    """A checkpoint's Hub name as it is, a local folder by its last component: no path of a machine in a config.

    `None` where there is no name, as for a model that was built and not loaded.
    """
    if os.path.isabs(name_or_path) or os.path.isdir(name_or_path):
        return os.path.basename(os.path.normpath(name_or_path))
    return name_or_path or None


__all__ = ["checkpoint_name", "set_code_writer", "write_own_code"]
