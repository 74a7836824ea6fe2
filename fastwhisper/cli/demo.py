"""`fastwhisper demo`: post-training from speech to model card, in a few minutes on two cores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import Verb, given


@dataclass
class DemoArguments:
    """Demo."""

    output: str = field(
        default="demo", metadata={"help": "output folder; it must be empty or new", "metavar": "FOLDER"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the speech, the splits and the training"})
    steps: int | None = field(
        default=None, metadata={"help": "training steps (default: 900; with --teacher, what --minutes allow)"}
    )
    held_out_clips: int | None = field(
        default=None, metadata={"help": "clips of held-out speakers to measure on (default: 160; with --teacher, 100)"}
    )
    decoder_layers: int | None = field(
        default=None, metadata={"help": "decoder layers of the student (default: 1; with --teacher, 2)"}
    )
    clips: int | None = field(
        default=None, metadata={"help": "clips to synthesise and train on (default: 2400); not with --teacher"}
    )


@dataclass
class OwnSpeechArguments:
    """Another teacher, your own speech."""

    teacher: str | None = field(
        default=None, metadata={"help": "name on the Hub or folder of a Whisper; with --dataset"}
    )
    dataset: str | None = field(
        default=None,
        metadata={
            "help": "name on the Hub or folder of your own speech; if it has a column speaker, other speakers are "
            "held out than trained on"
        },
    )
    dataset_config: str | None = field(default=None, metadata={"help": "configuration of a dataset on the Hub"})
    split: str | None = field(default=None, metadata={"help": "split to use; needed if there are several"})
    limit: int | None = field(default=None, metadata={"help": "use only the first N rows"})
    language: str | None = field(
        default=None, metadata={"help": "code or English name of what is spoken; a multilingual teacher needs it"}
    )
    minutes: float | None = field(default=None, metadata={"help": "time for the training (default: 30)"})


VERB = Verb(
    "fastwhisper demo",
    "Take a small Whisper to speech that it knows badly: train a student on synthetic hotel requests, compare it\n"
    "with its teacher on voices that neither has heard, transcribe a recording with timestamps, and write a folder\n"
    "for the Hub with a model card. With --teacher and --dataset it does the same with any Whisper and your speech.",
    "fastwhisper demo --teacher openai/whisper-base --dataset my_recordings --language en --output student_of_mine",
    [DemoArguments, OwnSpeechArguments],
)


def run(arguments: DemoArguments, own: OwnSpeechArguments) -> None:
    """Run the demo, and print the results and what it wrote."""
    import logging

    from rich.console import Console

    from ..demo.own_speech import run_on_own_speech
    from ..demo.run import FINE_TUNED_TEACHER, run_demo
    from ..evaluation.report import comparison_table
    from ..progress import quiet_transformers

    _check(arguments, own)
    quiet_transformers()
    logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    is_own = own.teacher is not None
    report = run_on_own_speech(**given(arguments), **given(own)) if is_own else run_demo(**given(arguments))
    Console().print(comparison_table(report.evaluation))
    print("\nThe recording, transcribed by the student:")
    for segment in report.transcript.segments:
        print(f"  {segment.start:6.2f} - {segment.end:6.2f} s  {segment.text}")
    student, teacher = report.evaluation["models"]
    better = student["wer"] < teacher["wer"]
    print(
        f"\nThe student makes {'fewer' if better else 'more'} errors than its teacher as it is "
        f"({100 * student['wer']:.2f} % against {100 * teacher['wer']:.2f} % WER) "
        f"and is {report.evaluation['speed_ratio']:.1f}x as fast (both greedy, one clip at a time)."
    )
    print(f"{'A teacher that is fine-tuned too is not measured here.' if is_own else FINE_TUNED_TEACHER}\n")
    for what, path in (
        ("checkpoint", report.student),
        ("model card", report.student / "README.md"),
        ("curves", report.student / "curves.png"),
        ("measurements", report.student / "evaluation.json"),
        ("subtitles", report.subtitles),
    ):
        print(f"{what:<13}{path}")


def _check(arguments: DemoArguments, own: OwnSpeechArguments) -> None:
    """Refuse flags that do not go together."""
    if (own.teacher is None) != (own.dataset is None):
        alone, other = ("dataset", "teacher") if own.teacher is None else ("teacher", "dataset")
        raise InputError(f"--{alone} needs --{other}: a Whisper and speech to train it on, or neither")
    if own.teacher is None and given(own):
        raise InputError(f"--{next(iter(given(own)))} is for speech of your own: give --teacher and --dataset")
    if own.teacher is not None and arguments.clips is not None:
        raise InputError("--clips is for synthetic speech: --limit uses the first rows of a dataset")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
