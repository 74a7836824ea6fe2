"""The program `fastwhisper`: one verb, one module of this folder, imported when it is called."""

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from .. import __version__
from ..errors import InputError, Stopped

VERBS = {
    "demo": "distil a small student on synthetic speech, measure it and write a Hub-ready folder",
    "init": "build an untrained student from a Whisper teacher",
    "label": "transcribe a data set with a teacher (pseudo-labels)",
    "distill": "train a student with ASKD",
    "evaluate": "WER, CER, speed and memory of one model, or of several side by side",
    "transcribe": "write the text of audio files",
    "push": "upload a saved folder to the Hugging Face Hub",
    "card": "rewrite the model card of a saved folder",
    "slm": "FastSLM, speech for a language model: init, ask, transcribe",
    "convert-fastslm": "convert published FastSLM checkpoints, and back",
}
BATCH_FLAGS = {
    "label": "--batch_size",
    "evaluate": "--batch_size",
    "transcribe": "--batch_size",
    "distill": "--per_device_train_batch_size (with --gradient_accumulation_steps for the same batch)",
}


def usage() -> str:
    rows = "\n".join(f"  {verb:<17}{help_text}" for verb, help_text in VERBS.items())
    return f"""usage: fastwhisper VERB [OPTIONS]

Distil Whisper into smaller students that run in any Whisper engine, and let language models listen to speech.

verbs:
{rows}

fastwhisper VERB --help shows the options of a verb, fastwhisper --version the version.
Set FASTWHISPER_TRACEBACK=1 to see the traceback behind a one-line error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb. Returns 0, what the verb returns, 2 for an error of input, 130 or 143 after SIGINT or SIGTERM.

    An [`InputError`], a full disk and a lack of memory are one line on standard error; whatever else goes wrong keeps
    its traceback.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage(), end="")
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(__version__)
        return 0
    verb, *rest = arguments
    if verb not in VERBS:
        print(f"fastwhisper: there is no verb {verb!r}; the verbs are {', '.join(VERBS)}", file=sys.stderr)
        return 2
    try:
        with _sigterm_as_sigint():
            return importlib.import_module(f".{verb.replace('-', '_')}", __package__).main(rest) or 0
    except Stopped as stopped:
        print(f"fastwhisper {verb}: {stopped}", file=sys.stderr)
        return stopped.exit_code
    except KeyboardInterrupt:
        print("fastwhisper: interrupted", file=sys.stderr)
        return 130
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        said = _one_line(error, verb)
        if said is None or os.environ.get("FASTWHISPER_TRACEBACK"):
            raise
        print(f"fastwhisper {verb}: error: {said}", file=sys.stderr)
        return 2


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM raise, too: what is half-written is tidied away."""

    def stop(number: int, frame: object) -> None:
        raise Stopped("terminated", number)

    if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_line(error: Exception, verb: str) -> str | None:
    """What to say of an error that the user can do something about; `None` for any other."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = f" for {error.filename}" if error.filename else ""
        return f"no space is left on the disk{place}: free some, then run it again"
    # By name: torch is not imported here.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        way_out = f": lower {BATCH_FLAGS[verb]}" if verb in BATCH_FLAGS else ""
        return f"out of memory{way_out}"
    return None


if __name__ == "__main__":
    sys.exit(main())
