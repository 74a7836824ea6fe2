"""`fastwhisper demo`: the whole pipeline on a small scale, offline, in a few minutes on two cores."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given


@dataclass
class DemoArguments:
    """Demo."""

    output: str = field(
        default="demo", metadata={"help": "output folder; it must be empty or new", "metavar": "FOLDER"}
    )
    seed: int = field(default=0, metadata={"help": "seed of the speech and of the training"})
    steps: int = field(default=900, metadata={"help": "training steps"})
    clips: int = field(default=2400, metadata={"help": "clips to synthesise and train on"})
    held_out_clips: int = field(default=160, metadata={"help": "clips of held-out voices to measure on"})
    decoder_layers: int = field(default=2, metadata={"help": "decoder layers of the student; the teacher has 6"})


VERB = Verb(
    "fastwhisper demo",
    "Distil a small Whisper student on synthetic commands, compare it with its teacher on voices that neither has\n"
    "heard, transcribe a recording with timestamps, and write a Hub-ready folder with a model card.",
    "fastwhisper demo --output demo",
    [DemoArguments],
)


def run(arguments: DemoArguments) -> None:
    """Run the demo, and print the results and what it wrote."""
    import logging

    from rich.console import Console

    from ..demo.run import run_demo
    from ..evaluation.report import comparison_table
    from ..progress import quiet_transformers

    quiet_transformers()
    logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    report = run_demo(**given(arguments))
    Console().print(comparison_table(report.evaluation))
    print("\nThe recording, transcribed by the student:")
    for segment in report.transcript.segments:
        print(f"  {segment.start:6.2f} - {segment.end:6.2f} s  {segment.text}")
    student, teacher = report.evaluation["models"]
    better = student["wer"] < teacher["wer"]
    print(
        f"\nThe student makes {'fewer' if better else 'more'} errors than its teacher "
        f"({100 * student['wer']:.2f} % against {100 * teacher['wer']:.2f} % WER) "
        f"and is {report.evaluation['speed_ratio']:.1f}x faster (both greedy).\n"
    )
    for what, path in (
        ("checkpoint", report.student),
        ("model card", report.student / "README.md"),
        ("curves", report.student / "curves.png"),
        ("measurements", report.student / "evaluation.json"),
        ("subtitles", report.subtitles),
    ):
        print(f"{what:<13}{path}")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
