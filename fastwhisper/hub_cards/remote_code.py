"""Writes the code of a model family flat next to its weights, so that the folder loads without this package."""

import ast
import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configuration.configuration_fastwhisper import plain_whisper_settings
from ..errors import InputError
from ..files import write_whole

PACKAGE = Path(__file__).parents[1]
SHIPPED_ROOMS = ("configuration", "modeling")
ALLOWED_PACKAGES = {"torch", "transformers", "huggingface_hub", "numpy", "safetensors", "tokenizers"}


@dataclass(frozen=True)
class RemoteCode:
    """The code that one model family ships.

    Args:
        files (`tuple[str, ...]`): Paths within the package; what they import from it is included.
        auto_map (`dict[str, str]`): AutoClass to `file.Class`, as `config.json` holds it.
        settings (`dict`): Other keys of `config.json` that the family needs.
    """

    files: tuple[str, ...]
    auto_map: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)


FAMILIES = {
    "whisper": RemoteCode(
        files=("configuration/configuration_fastwhisper.py", "modeling/modeling_fastwhisper.py"),
        auto_map={
            "AutoConfig": "configuration_fastwhisper.FastWhisperConfig",
            "AutoModel": "modeling_fastwhisper.FastWhisperForConditionalGeneration",
            "AutoModelForSpeechSeq2Seq": "modeling_fastwhisper.FastWhisperForConditionalGeneration",
        },
        settings=plain_whisper_settings(),
    ),
    "fastslm": RemoteCode(
        files=(
            "configuration/configuration_fastslm.py",
            "modeling/modeling_fastslm.py",
            "modeling/processing_fastslm.py",
        ),
        auto_map={
            "AutoConfig": "configuration_fastslm.FastSLMConfig",
            "AutoModel": "modeling_fastslm.FastSLMModel",
            "AutoModelForCausalLM": "modeling_fastslm.FastSLMForCausalLM",
            "AutoModelForMultimodalLM": "modeling_fastslm.FastSLMForCausalLM",
            "AutoProcessor": "processing_fastslm.FastSLMProcessor",
        },
    ),
}


class NotFlattenableError(ValueError):
    """A file imports something that cannot be shipped to the Hub; the message names the file and the line."""


def write_remote_code(folder: str | os.PathLike) -> list[Path]:
    """Write the code of the folder's model family next to its weights and name it in `config.json`.

    Each file is written under a temporary name and renamed, `config.json` last: an interruption leaves a folder that
    loads.

    Args:
        folder (`str` or `os.PathLike`): Holds a `config.json`.

    Returns:
        The paths of the code files.

    Raises:
        InputError: for a `config.json` of another family.
        NotFlattenableError: if a file of the family imports something that cannot be shipped.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise InputError(
            f"{folder / 'config.json'} has model_type {config.get('model_type')!r}; "
            f"this package has code for {', '.join(FAMILIES)}"
        )
    sources = flattened_sources([PACKAGE / file for file in family.files])
    for name, source in sources.items():
        write_whole(folder / name, source)
    config = {**config, **family.settings, "auto_map": family.auto_map}
    write_whole(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    return [folder / name for name in sources]


def flattened_sources(files: list[Path], package: Path = PACKAGE) -> dict[str, str]:
    """File name to source with only same-folder imports, for `files` and everything they import from the package.

    Raises:
        NotFlattenableError: for an import that cannot be flattened, or for two files of the same name.
    """
    sources: dict[str, str] = {}
    paths: dict[str, Path] = {}
    waiting = [Path(file) for file in files]
    while waiting:
        path = waiting.pop(0)
        if paths.setdefault(path.name, path) != path:
            raise NotFlattenableError(f"{paths[path.name]} and {path} would both be {path.name} in a flat folder")
        if path.name not in sources:
            sources[path.name], imported = flatten_source(path, package)
            waiting += imported
    _check_text_imports(sources)
    return sources


def flatten_source(path: Path, package: Path = PACKAGE) -> tuple[str, list[Path]]:
    """The source of a file with its package-relative imports turned into same-folder ones, and the files they name.

    Raises:
        NotFlattenableError: for an import of a module outside the shipped rooms, of a module as a name
            (`from . import x`), of this package by its name, or of a package that users of transformers may lack.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    imported = []
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                _check_absolute(alias.name, path, node.lineno)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            _check_absolute(node.module or "", path, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            target = _relative_target(node, path, package)
            imported.append(target)
            written = f"from {'.' * node.level}{node.module} import"
            line = lines[node.lineno - 1]
            if written not in line:
                raise NotFlattenableError(f"{path}, line {node.lineno}: write the import as {written!r} on one line")
            lines[node.lineno - 1] = line.replace(written, f"from .{target.stem} import")
    return "".join(lines), imported


def _check_absolute(module: str, path: Path, line: int) -> None:
    top = module.partition(".")[0]
    if top not in ALLOWED_PACKAGES and top not in sys.stdlib_module_names:
        raise NotFlattenableError(
            f"{path}, line {line}: shipped code may import {', '.join(sorted(ALLOWED_PACKAGES))} and the standard "
            f"library, not {module!r}"
        )


def _relative_target(node: ast.ImportFrom, path: Path, package: Path) -> Path:
    place = f"{path}, line {node.lineno}"
    if not node.module:
        raise NotFlattenableError(f"{place}: import names from a module, not a module from a folder")
    target = path.parents[node.level - 1].joinpath(*node.module.split(".")).with_suffix(".py")
    rooms = [package / room for room in SHIPPED_ROOMS]
    if target.parent not in rooms or not target.is_file():
        raise NotFlattenableError(
            f"{place}: {target} is not a file of {' or '.join(SHIPPED_ROOMS)}, the rooms whose files are shipped"
        )
    return target


def _check_text_imports(sources: dict[str, str]) -> None:
    """transformers searches the whole text for relative imports, docstrings and comments included."""
    for name, source in sources.items():
        for module in re.findall(r"^\s*(?:from|import)\s+\.(\S*)", source, flags=re.MULTILINE):
            if f"{module}.py" not in sources:
                raise NotFlattenableError(f"{name}: its text mentions an import of '.{module}', which is not shipped")
