"""Interpreters in which this package cannot be imported: here with all but some packages hidden, and others.

`FASTWHISPER_PYTHONS` may name interpreters of other environments, such as those with the lowest and the newest
transformers, separated as in PATH.
"""

import os
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .hub_folders import python_answer

RUN_FILE = """
import runpy, sys
sys.modules.update(dict.fromkeys({blocked!r}))
runpy.run_path({path!r}, run_name="__main__")
"""
OTHERS = [path for path in os.environ.get("FASTWHISPER_PYTHONS", "").split(os.pathsep) if path]
NO_OTHERS = pytest.param(None, marks=pytest.mark.skip(reason="FASTWHISPER_PYTHONS names no other interpreter"))
# Parameters of a test: "" for this interpreter with everything else hidden, and the others.
INTERPRETERS = ["", *(OTHERS or [NO_OTHERS])]


def with_dependencies(*packages: str) -> set[str]:
    """The packages and all that they need, without extras."""
    known: set[str] = set()
    waiting = [canonicalize_name(name) for name in packages]
    while waiting:
        name = waiting.pop()
        if name in known:
            continue
        known.add(name)
        for line in metadata.requires(name) or []:
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(canonicalize_name(requirement.name))
    return known


def blocked_modules(*packages: str) -> list[str]:
    """Top-level modules of every other installed package."""
    kept = with_dependencies(*packages)
    owners = metadata.packages_distributions().items()
    others = {module for module, names in owners if not kept & {canonicalize_name(name) for name in names}}
    return sorted({"fastwhisper", *others})


def script_with_only(path: Path, *packages: str) -> str:
    """A script that runs the file `path` where nothing but `packages` and what they need can be imported."""
    return RUN_FILE.format(blocked=blocked_modules(*packages), path=str(path))


def answer_elsewhere(interpreter: str, path: Path, folder: Path, *arguments: object) -> Any:
    """What the program `path` prints last in one of `INTERPRETERS`, as JSON."""
    if interpreter:
        script = RUN_FILE.format(blocked=[], path=str(path))
        return python_answer(script, folder, *arguments, executable=interpreter)
    return python_answer(script_with_only(path, "transformers", "torch"), folder, *arguments)
