"""Window times as text for the language model: `[00:30]`, `[1:02:30]`."""

import re

_CLOCK = re.compile(r"\[(\d+:)?[0-5]\d:[0-5]\d(\.\d{1,2})?\]")


def clock(seconds: float) -> str:
    """A time as text: minutes and seconds, with hours and hundredths of a second only if needed."""
    minutes, hundredths = divmod(round(100 * seconds), 6000)
    hours, minutes = divmod(minutes, 60)
    whole, part = divmod(hundredths, 100)
    fraction = f".{part:02}".rstrip("0") if part else ""
    return f"[{f'{hours}:' if hours else ''}{minutes:02}:{whole:02}{fraction}]"


def is_clock(text: str) -> bool:
    """Whether a text is a time as `clock` writes it, and nothing else."""
    return _CLOCK.fullmatch(text) is not None
