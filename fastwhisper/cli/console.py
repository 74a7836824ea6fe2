"""What the verbs print."""

import io
import os
import sys


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
