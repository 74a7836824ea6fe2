"""What a saved folder says about itself: its config, the record of its training, its evaluation, its weights."""

import json
import math
import os
import re
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..evaluation.public_records import make_public
from ..files import write_whole
from ..model_folders import read_json, weight_shapes

RUN_FILE = "training_run.json"
EVALUATION_FILE = "evaluation.json"
CURVES_FILE = "curves.png"

# What the records hold as far as cards read them: types, mappings of keys, and lists of one kind.
RUN_SHAPE: dict[str, Any] = {
    "askd": {},
    "training": {},
    "preparation": {},
    "teacher": {"name": str, "parameters": int, "license": str},
    "datasets": [str],
    "language": str | list,
    "license": str,
    "tags": [str],
    "limits": [str],
}
_NUMBERS = (
    *("parameters", "wer", "cer", "substitutions", "deletions", "insertions", "words", "real_time_factor"),
    *("encoder_seconds", "decoder_seconds", "peak_memory_bytes"),
)
EVALUATION_SHAPE: dict[str, Any] = {
    "command": str,
    "dataset": {
        **dict.fromkeys(("name", "config", "split"), str),
        "language": str | list,
        **dict.fromkeys(("rows", "audio_seconds"), int | float),
    },
    "hardware": {"processor": str, "memory_bytes": int | float},
    "settings": {"num_beams": int},
    "versions": {},
    "models": [
        {
            **dict.fromkeys(("name", "folder", "weights_sha256", "role"), str),
            **dict.fromkeys(_NUMBERS, int | float),
        }
    ],
}

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        InputError: if it is missing or damaged.
    """
    config = _read_json(folder / "config.json")
    if config is None:
        raise InputError(f"{folder} has no config.json: it does not contain a saved model")
    return config


def read_run(folder: Path) -> dict[str, Any]:
    """The record of the training run in the folder; empty if there is none.

    Raises:
        InputError: if it is damaged or does not hold what is recorded there.
    """
    run = _read_json(folder / RUN_FILE) or {}
    _check_shape(run, RUN_SHAPE, str(folder / RUN_FILE))
    return run


def read_evaluation(folder: Path) -> dict[str, Any]:
    """The report of `fastwhisper evaluate` in the folder; empty if there is none.

    Raises:
        InputError: if it is damaged or does not hold what is recorded there.
    """
    evaluation = _read_json(folder / EVALUATION_FILE) or {}
    _check_shape(evaluation, EVALUATION_SHAPE, str(folder / EVALUATION_FILE))
    data = evaluation.get("dataset") or {}
    return {**evaluation, "dataset": {**data, "name": public_name(data["name"])}} if data.get("name") else evaluation


def count_parameters(folder: Path) -> int | None:
    """Number of parameters in the folder's safetensors, tied ones counted once; None if there are no weights.

    Raises:
        InputError: for a damaged file.
    """
    return sum(map(math.prod, weight_shapes(folder).values())) or None


def hub_name(name: str | None) -> str | None:
    """`name` if it can be a Hub repository (`owner/name`) and is not a folder on this machine, else None."""
    if name is None or not HUB_NAME.fullmatch(name) or os.path.exists(name):
        return None
    return name


def public_name(name: str) -> str:
    """A Hub name as it is; the last component of a local file or folder."""
    return os.path.basename(os.path.normpath(name)) if os.path.exists(name) else make_public(name)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write a record as JSON, without absolute local paths."""
    write_whole(path, json.dumps(make_public(record), indent=2, ensure_ascii=False) + "\n")


def _check_shape(value: Any, shape: Any, place: str) -> None:
    """Check what a record holds; None stands for what was not recorded."""
    if value is None:
        return
    kind: Any = dict if isinstance(shape, dict) else list if isinstance(shape, list) else shape
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = {dict: "a JSON object", list: "a list"}.get(kind, str(getattr(kind, "__name__", kind)))
        raise InputError(f"{place} is {value!r:.40}: it must be {wanted}")
    if isinstance(shape, dict):
        for key in set(shape) & set(value):
            _check_shape(value[key], shape[key], f"{place}: {key}")
    elif isinstance(shape, list):
        for index, item in enumerate(value):
            _check_shape(item, shape[0], f"{place}[{index}]")


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    return make_public(read_json(path))
