"""What the verbs print."""

import io
import os
import sys
from collections.abc import Callable, Iterable
from typing import TypeVar

from ..errors import InputError

Result = TypeVar("Result")


def show(text: str) -> None:
    """Print at once, without waiting for more."""
    print(text, end="", flush=True)


def forgive_console() -> None:
    """Print ? for what the console cannot show: nothing else must be lost for a character."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")


def reader_has_left() -> bool:
    """Whether nobody reads standard output any more, as behind `head`; what was not read is thrown away then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Otherwise Python would flush the rest at exit, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


def show_error(verb: str, error: Exception) -> None:
    """Print one line on standard error."""
    print(f"fastwhisper {verb}: error: {' '.join(str(error).split())}", file=sys.stderr)


def show_results(
    verb: str, results: Iterable[tuple[str, Result | InputError]], show_one: Callable[[str, Result], None]
) -> int:
    """Show what became of each recording as it is done: its result, or its error on standard error.

    Returns:
        `int`: 0, 1 if some recordings failed, or 2 if all did.
    """
    done = failed = 0
    for name, result in results:
        if isinstance(result, InputError):
            failed += 1
            show_error(verb, result)
        else:
            done += 1
            show_one(name, result)
    return 0 if not failed else 1 if done else 2
