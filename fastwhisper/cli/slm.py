"""`fastwhisper slm`: build a FastSLM, ask it about recordings, let it transcribe them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .arguments import Verb, given
from .shared_arguments import TrustArguments

if TYPE_CHECKING:
    from ..errors import InputError
    from ..transcription.speech_answers import Answer

FILES = ("files", "audio files, folders (searched recursively), or - for standard input; put them before the flags")
NOT_ENDED = {
    "length": "the answer was cut off at the maximum length: see --max_new_tokens",
    "loop": "the answer repeated itself and was stopped",
}


@dataclass
class PartsArguments:
    """Parts."""

    encoder: str = field(metadata={"help": "Whisper or FastWhisper that provides the encoder"})
    language_model: str = field(metadata={"help": "causal language model with its tokenizer"})
    output: str = field(metadata={"help": "output folder; it must not exist yet", "metavar": "FOLDER"})


@dataclass
class AdapterArguments:
    """Adapter."""

    num_queries: int = field(default=50, metadata={"help": "speech tokens per window"})
    stage_queries: list[int] = field(
        default_factory=lambda: [80, 80, 80], metadata={"help": "queries per time scale (default: 80 80 80)"}
    )
    rates: list[int] | None = field(default=None, metadata={"help": "tokens per window to choose from later"})
    query_clock: str = field(default="index", metadata={"help": "index (as published) or aligned", "metavar": "CLOCK"})
    tokens_follow_length: bool = field(default=False, metadata={"help": "tokens in proportion to the audio's length"})
    mask_padding: bool = field(default=False, metadata={"help": "exclude padding from every attention"})
    seed: int = field(default=0, metadata={"help": "seed of the adapter's weights"})


@dataclass
class WindowArguments:
    """Windows."""

    window_overlap: float = field(default=0.0, metadata={"help": "seconds that neighbouring windows share"})
    window_times: bool = field(
        default=False, metadata={"help": "write each window's start, as in [00:30], into the prompt"}
    )
    encoder_true_length: bool | None = field(
        default=None,
        metadata={"help": "give the encoder unpadded audio, or with false padded audio; default: as it was trained"},
    )


@dataclass
class ModelArguments:
    """Model."""

    model: str = field(metadata={"help": "name on the Hub or folder of a FastSLM"})


@dataclass
class AnswerArguments:
    """Answer."""

    tokens_per_window: int | None = field(
        default=None, metadata={"help": "speech tokens per window: one of the model's rates"}
    )
    max_new_tokens: int | None = field(
        default=None, metadata={"help": "longest answer in tokens; default: from the audio's duration"}
    )
    long_form: str | None = field(
        default=None,
        metadata={"help": "stitch answers span by span if the context is too short", "metavar": "MODE"},
    )
    span_windows: int | None = field(
        default=None, metadata={"help": "windows per span with --long_form; default: all that fit the context"}
    )
    window_times: bool = field(
        default=False, metadata={"help": "write each window's start into the prompt; default: as saved"}
    )


@dataclass
class DeviceArguments:
    """Device."""

    device: str | None = field(
        default=None, metadata={"help": "cpu, cuda or cuda:N; default: CUDA if available", "metavar": "DEVICE"}
    )
    dtype: str | None = field(
        default=None, metadata={"help": "float32, float16 or bfloat16; default: as saved", "metavar": "DTYPE"}
    )


@dataclass
class QuestionArguments:
    """Question."""

    question: str = field(default="What is said?", metadata={"help": "what to ask", "metavar": "TEXT"})


@dataclass
class TranscriptArguments:
    """Transcript."""

    language: str | None = field(default=None, metadata={"help": "code or name of the language"})
    output: str | None = field(
        default=None, metadata={"help": "folder for FILE.txt; without it texts are printed", "metavar": "FOLDER"}
    )


VERBS = {
    "init": Verb(
        "fastwhisper slm init",
        "Build an untrained FastSLM from a Whisper encoder and a causal language model.",
        "fastwhisper slm init --encoder openai/whisper-large-v3 --language_model Qwen/Qwen3-4B --output slm",
        [PartsArguments, AdapterArguments, WindowArguments, TrustArguments],
    ),
    "ask": Verb(
        "fastwhisper slm ask",
        "Answer a question about recordings of any length.",
        'fastwhisper slm ask lecture.flac --model slm --question "What was decided?"',
        [ModelArguments, QuestionArguments, AnswerArguments, DeviceArguments, TrustArguments],
        FILES,
    ),
    "transcribe": Verb(
        "fastwhisper slm transcribe",
        "Transcribe recordings of any length.",
        "fastwhisper slm transcribe lecture.flac --model slm --long_form stitch --output texts",
        [ModelArguments, TranscriptArguments, AnswerArguments, DeviceArguments, TrustArguments],
        FILES,
    ),
}


def init(parts: PartsArguments, adapter: AdapterArguments, windows: WindowArguments, trust: TrustArguments) -> None:
    """Write the model and its processor, and print its sizes."""
    from ..hub_cards.new_fastslm import write_new_fastslm
    from ..progress import quiet_transformers

    quiet_transformers()
    settings = {**given(adapter), **given(windows), **given(trust)}
    model = write_new_fastslm(parts.encoder, parts.language_model, parts.output, **settings)
    config = model.config
    rate = config.qformer_config.num_queries / (config.window_seconds - config.window_overlap)
    sizes = {name: sum(p.numel() for p in part.parameters()) for name, part in model.model.named_children()}
    print(
        f"{parts.output}: {rate:.2f} speech tokens per second; "
        + ", ".join(f"{name} {size / 1e6:.1f} M" for name, size in sizes.items())
    )


def ask(
    files: Sequence[str],
    model: ModelArguments,
    question: QuestionArguments,
    answers: AnswerArguments,
    device: DeviceArguments,
    trust: TrustArguments,
) -> int:
    """Print the answer to a question about each file."""
    from ..transcription.answer_files import ask_files

    return _show(
        files, ask_files(files, question.question, **_settings(files, model, answers, device, trust)), printed=True
    )


def transcribe(
    files: Sequence[str],
    model: ModelArguments,
    transcripts: TranscriptArguments,
    answers: AnswerArguments,
    device: DeviceArguments,
    trust: TrustArguments,
) -> int:
    """Print the transcript of each file, or write it into a folder."""
    from ..transcription.answer_files import transcribe_files_with_fastslm

    settings = {**_settings(files, model, answers, device, trust), **given(transcripts)}
    return _show(files, transcribe_files_with_fastslm(files, **settings), printed=transcripts.output is None)


def _settings(
    files: Sequence[str],
    model: ModelArguments,
    answers: AnswerArguments,
    device: DeviceArguments,
    trust: TrustArguments,
) -> dict[str, Any]:
    import sys

    from ..errors import InputError
    from ..progress import quiet_transformers

    if not files:
        raise InputError("no audio files given; see fastwhisper slm --help")
    quiet_transformers()
    settings = {**given(model), **given(answers), **given(device), **given(trust)}
    # Without the flag as the processor was saved.
    settings["window_times"] = answers.window_times or None
    return {**settings, "standard_input": sys.stdin.buffer, "show_progress": True}


def _show(files: Sequence[str], results: "Iterable[tuple[str, Answer | InputError]]", printed: bool) -> int:
    """Print answers as they come. Returns the exit code."""
    import sys
    from pathlib import Path

    from .console import show, show_results

    several = len(files) > 1 or Path(files[0]).is_dir()

    def show_one(name: str, answer: "Answer") -> None:
        if answer.finish_reason in NOT_ENDED:
            print(f"{name}: {NOT_ENDED[answer.finish_reason]}", file=sys.stderr)
        if printed:
            show(f"{name}: {answer.text}\n" if several else f"{answer.text}\n")

    return show_results("slm", results, show_one)


def usage() -> str:
    rows = "\n".join(f"  {action:<12}{verb.description}" for action, verb in VERBS.items())
    return f"""usage: fastwhisper slm ACTION [OPTIONS]

FastSLM: hours of speech for a causal language model.

actions:
{rows}

Run fastwhisper slm ACTION --help for the options of an action.
"""


def main(argv: Sequence[str]) -> int | None:
    """Run an action.

    Raises:
        InputError: for an unknown action, or whatever the action refuses.
    """
    from ..errors import InputError

    action, rest = (argv[0], list(argv[1:])) if argv else ("--help", [])
    if action in ("-h", "--help"):
        print(usage(), end="")
        return None
    if action not in VERBS:
        raise InputError(f"there is no action {action!r}; the actions are {', '.join(VERBS)}")
    function: Any = {"init": init, "ask": ask, "transcribe": transcribe}[action]
    return VERBS[action].run(rest, function)
