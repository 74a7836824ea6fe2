"""What is written about a run, without the paths of the machine that it ran on."""

import math
import re
from collections.abc import Callable
from typing import Any

# A path that starts at the root of a machine, a drive or a home; not the // of a URL.
LOCAL_PATH = re.compile(r"(?<![\w/.:~-])(?:~|[A-Za-z]:)?[/\\](?:[^\s\"'/\\=,;]+[/\\])*([^\s\"'/\\=,;]+)[/\\]?")


def make_public(value: Any) -> Any:
    """The value with every absolute path in its texts cut to the last component, and None for NaN and infinity."""
    return _mapped(value, lambda text: LOCAL_PATH.sub(r"\1", text))


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
