"""What the verbs print."""

import sys


def show(text: str) -> None:
    """Print at once, with ? for what the console cannot show: the rest must not be lost for a character."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, errors="replace").decode(encoding), end="", flush=True)


def show_error(verb: str, error: Exception) -> None:
    """Print one line on standard error."""
    print(f"fastwhisper {verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
