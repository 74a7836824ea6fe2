"""An interpreter in which of all that is installed only some packages and what they depend on can be imported."""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

RUN_FILE = """
import runpy, sys
sys.modules.update(dict.fromkeys({blocked!r}))
runpy.run_path({path!r}, run_name="__main__")
"""


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
