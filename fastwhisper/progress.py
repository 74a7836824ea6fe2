"""Progress on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(shown: bool = True) -> Progress:
    """A bar on standard error if that is a terminal; it leaves standard output alone and disappears when done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(
        *columns,
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        disable=not (shown and sys.stderr.isatty()),
    )


@contextmanager
def set_aside(progress: Progress) -> Iterator[None]:
    """Hide a bar while something else is printed: on a terminal that would land on its line."""
    if progress.disable:
        yield
        return
    progress.stop()
    try:
        yield
    finally:
        progress.start()


def quiet_transformers() -> None:
    """Keep transformers from warning about what this package does on purpose, and from drawing bars into files."""
    transformers.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
