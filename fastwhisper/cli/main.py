"""The program `fastwhisper`: one verb, one module of this folder, imported when it is called."""

import importlib
import os
import sys
from collections.abc import Sequence

from .. import __version__

VERBS = {
    "demo": "distil a small student on synthetic speech, measure it and write a Hub-ready folder",
    "init": "build an untrained student from a Whisper teacher",
    "label": "transcribe a data set with a teacher (pseudo-labels)",
    "distill": "train a student with ASKD",
    "evaluate": "WER, CER, speed and memory of one model, or of two side by side",
    "transcribe": "write the text of audio files",
    "push": "upload a saved folder to the Hugging Face Hub",
    "card": "rewrite the model card of a saved folder",
    "slm": "FastSLM, speech for a language model: init, ask, transcribe",
    "convert-fastslm": "published FastSLM checkpoints into this package's form, and back",
}


def usage() -> str:
    rows = "\n".join(f"  {verb:<17}{help_text}" for verb, help_text in VERBS.items())
    return f"""usage: fastwhisper VERB [OPTIONS]

Faster Whisper students by adaptive self-knowledge distillation.

verbs:
{rows}

fastwhisper VERB --help shows the options of a verb; fastwhisper --version the version.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb. Returns 0, 2 for an error of input (one line on stderr), or 130 when interrupted.

    With the environment variable `FASTWHISPER_TRACEBACK=1` errors of input show their traceback too.
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
        importlib.import_module(f".{verb.replace('-', '_')}", __package__).main(rest)
    except KeyboardInterrupt:
        print("fastwhisper: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        if os.environ.get("FASTWHISPER_TRACEBACK"):
            raise
        print(f"fastwhisper {verb}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
