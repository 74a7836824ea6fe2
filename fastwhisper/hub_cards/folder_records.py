"""What a saved folder says about itself: its config, the record of its training, its evaluation, its weights."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.saved_weights import weight_files
from ..files import write_whole

RUN_FILE = "training_run.json"
EVALUATION_FILE = "evaluation.json"
CURVES_FILE = "curves.png"

# A path that starts at the root of a machine, a drive or a home; not the // of a URL.
LOCAL_PATH = re.compile(r"(?<![\w/.:~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s\"'/\\=,;]+[/\\])*([^\s\"'/\\=,;]+)[/\\]?")
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        InputError: if it is missing or damaged.
    """
    config = _read_json(folder / "config.json")
    if config is None:
        raise InputError(f"{folder} has no config.json: no model is saved there")
    return config


def read_run(folder: Path) -> dict[str, Any]:
    """The record of the training run in the folder; empty where there is none."""
    return _read_json(folder / RUN_FILE) or {}


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The report of `fastwhisper evaluate` in the folder; empty where there is none."""
    evaluation = _read_json(folder / EVALUATION_FILE) or {}
    data = evaluation.get("dataset") or {}
    return {**evaluation, "dataset": {**data, "name": public_name(data["name"])}} if data.get("name") else evaluation


def count_parameters(folder: Path) -> int | None:
    """Parameters in the folder's safetensors, tied ones counted once; None where there are no weights.

    Raises:
        InputError: for a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    total = 0
    for path in weight_files(folder):
        try:
            with safe_open(path, "np") as weights:
                names = weights.keys()
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in names)
        except SafetensorError as error:
            raise InputError(f"{path} is damaged: {error}") from error
    return total or None


def hub_name(name: str | None) -> str | None:
    """`name` if it can be that of a Hub repository (`owner/name`) and is not a folder on this machine, else None."""
    if name is None or not HUB_NAME.fullmatch(name) or os.path.exists(name):
        return None
    return name


def public_name(name: str) -> str:
    """A Hub name as it is, a file or folder on this machine by its last component."""
    return os.path.basename(os.path.normpath(name)) if os.path.exists(name) else make_public(name)


def make_public(value: Any) -> Any:
    """The value with every absolute path in its texts cut to its last component, and None for nan and infinity."""
    return _mapped(value, lambda text: LOCAL_PATH.sub(r"\1", text))


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, without the absolute paths of this machine."""
    write_whole(path, json.dumps(make_public(record), indent=2, ensure_ascii=False) + "\n")


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _mapped(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_mapped(item, change) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object")
    return make_public(content)
