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
from .console import forgive_console, reader_has_left

VERBS = {
    "demo": "distil a small student on synthetic speech, measure it, and write a Hub-ready folder",
    "init": "build an untrained student from a Whisper teacher",
    "label": "transcribe a dataset with a teacher (pseudo-labels)",
    "distill": "train a student with ASKD",
    "evaluate": "WER, CER, speed and memory of one model, or of several side by side",
    "transcribe": "transcribe audio files",
    "export": "write a model for another engine: CTranslate2, ONNX Runtime, whisper.cpp, vLLM",
    "import": "write a checkpoint of CTranslate2 or openai-whisper as a folder of transformers",
    "push": "upload a saved folder to the Hugging Face Hub",
    "card": "write the model card of a saved folder",
    "slm": "FastSLM, speech for language models: init, ask, transcribe",
    "convert-fastslm": "convert published FastSLM checkpoints, both ways",
}
CLOSED_PIPE = 141  # 128 and SIGPIPE, as a shell reports it
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

Run fastwhisper VERB --help for the options of a verb, fastwhisper --version for the version.
Set FASTWHISPER_TRACEBACK=1 to see the traceback behind a one-line error.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb.

    Returns 0, the verb's own exit code, 2 for invalid input, 130 or 143 after SIGINT or SIGTERM, or 141 if standard
    output was closed.

    An [`InputError`], a full disk and a lack of memory are one line on standard error; any other exception keeps
    its traceback.
    """
    forgive_console()
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
    except BrokenPipeError:
        if not reader_has_left():
            raise
        return CLOSED_PIPE
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        said = _one_line(error, verb)
        if said is None or os.environ.get("FASTWHISPER_TRACEBACK"):
            raise
        print(f"fastwhisper {verb}: error: {said}", file=sys.stderr)
        return 2


@contextmanager
def _sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM raise as well, so that half-written files are cleaned up."""

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
    """The message for an error that the user can do something about; `None` for any other."""
    if isinstance(error, InputError):
        return " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        place = f" for {error.filename}" if error.filename else ""
        return f"no space left on the disk{place}: free some and run the command again"
    # By name, and by the word of torch's CPU allocator, so that torch need not be imported here.
    of_torch = type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
    if isinstance(error, MemoryError) or of_torch:
        way_out = f": lower {BATCH_FLAGS[verb]}" if verb in BATCH_FLAGS else ""
        return f"out of memory{way_out}"
    return None


if __name__ == "__main__":
    sys.exit(main())
