"""What evaluation and transcription show on standard error."""

import sys

import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def progress_bar(shown: bool = True) -> Progress:
    """A bar on standard error, where that is a terminal; it leaves standard output alone and goes when it is done."""
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


def quiet_transformers() -> None:
    """Keep transformers from warning of what its own `generate` calls do, and from drawing bars into a file."""
    transformers.logging.set_verbosity_error()
    if not sys.stderr.isatty():
        transformers.logging.disable_progress_bar()
