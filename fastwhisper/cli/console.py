"""What the verbs print."""

import os
import sys

# Exit code as of a program that ends when head has read enough.
CLOSED_PIPE = 141


def show(text: str) -> bool:
    """Print at once, with ? for what the console cannot show. Returns whether there is still somebody who reads."""
    encoding = sys.stdout.encoding or "utf-8"
    try:
        print(text.encode(encoding, errors="replace").decode(encoding), end="", flush=True)
    except BrokenPipeError:
        # The end of the program would write what is left once more, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return False
    return True


def show_error(verb: str, error: Exception) -> None:
    """Print one line on standard error."""
    print(f"fastwhisper {verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
