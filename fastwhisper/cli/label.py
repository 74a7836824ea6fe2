"""`fastwhisper label`: transcribe a data set with a teacher (pseudo-labels)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given
from .shared_arguments import DataArguments, DeviceArguments, SpeechArguments


@dataclass
class LabelArguments:
    """Labels."""

    model: str = field(metadata={"help": "Whisper teacher: name on the Hub or folder"})
    output: str = field(
        metadata={"help": "new folder for metadata.jsonl, or that of the run to go on with", "metavar": "FOLDER"}
    )
    timestamps: bool = field(default=True, metadata={"help": "write timestamped_text, too; slower"})
    wer_filter: float | None = field(
        default=None,
        metadata={"help": "leave out rows whose label and reference disagree by more than this WER, such as 0.1"},
    )
    batch_size: int = field(default=16, metadata={"help": "clips that are decoded together"})


VERB = Verb(
    "fastwhisper label",
    "Write a teacher's transcription beside each row of a data set, to train a student on it.\n\n"
    "Run again with the same options after it was killed, it goes on where it was.",
    "fastwhisper label --model openai/whisper-large-v3 --dataset my_speech --language en --wer_filter 0.1 "
    "--output labels",
    [LabelArguments, DataArguments, SpeechArguments, DeviceArguments],
    notes="On several processes (--multi_gpu is right for CPUs, too):\n"
    "  accelerate launch --multi_gpu --num_processes 2 -m fastwhisper label ...",
)


def run(labels: LabelArguments, data: DataArguments, speech: SpeechArguments, device: DeviceArguments) -> None:
    """Label a data set, and print what was written."""
    import logging

    from ..labelling.label import label
    from ..labelling.pseudo_labels import this_process
    from ..progress import quiet_transformers

    quiet_transformers()
    if not this_process().is_main_process:
        logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    report = label(**given(labels), **given(data), **given(speech), **given(device))
    if report is None:
        return
    print(f"labelled {report.labelled} rows, {report.kept} of them in {report.metadata}")
    if labels.wer_filter is not None:
        dropped = report.labelled - report.kept
        print(f"left out {dropped} whose label and reference disagree by more than {labels.wer_filter:.0%} WER")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
