"""What the configurations of both families do where they are saved: code beside them, public names of their parts."""

import importlib
import os

INSTALLED_NAME = "fastwhisper.configuration.saved_folder"


def write_own_code(folder: str | os.PathLike) -> None:
    """Write this package's code into a folder with a `config.json`; nothing where this file is remote code itself,
    whose flat files transformers copies.
    """
    if __name__ == INSTALLED_NAME:
        # By name and not by an import statement: this file must load where the package is not installed.
        importlib.import_module("fastwhisper.hub_cards.remote_code").write_remote_code(folder)


def checkpoint_name(name_or_path: str) -> str | None:
    """A checkpoint's Hub name as it is, a local folder by its last component: no path of a machine in a config.

    `None` where there is no name, as for a model that was built and not loaded.
    """
    if os.path.isabs(name_or_path) or os.path.isdir(name_or_path):
        return os.path.basename(os.path.normpath(name_or_path))
    return name_or_path or None


__all__ = ["checkpoint_name", "write_own_code"]
