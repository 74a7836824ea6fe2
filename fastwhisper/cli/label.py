"""`fastwhisper label`: transcribe a dataset with a teacher (pseudo-labels)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given
from .shared_arguments import DataArguments, DeviceArguments, SpeechArguments, TrustArguments


@dataclass
class LabelArguments:
    """Labels."""

    model: str = field(metadata={"help": "Whisper teacher: name on the Hub or folder"})
    output: str = field(
        metadata={"help": "folder for metadata.jsonl: a new one, or that of a run to resume", "metavar": "FOLDER"}
    )
    timestamps: bool = field(default=True, metadata={"help": "also write timestamped_text; slower"})
    wer_filter: float | None = field(
        default=None,
        metadata={"help": "leave out rows where label and reference differ by more than this WER, for example 0.1"},
    )
    batch_size: int = field(default=16, metadata={"help": "clips decoded together"})


@dataclass
class CacheArguments:
    """Cache."""

    teacher_cache: str | None = field(
        default=None,
        metadata={
            "help": "folder for the teacher's states of each label: with it, distill need not run this teacher, "
            "except for the encoder states of an --encoder_weight. Give the following as for distill, and as --dtype "
            "its --teacher_dtype",
            "metavar": "FOLDER",
        },
    )
    cache_dtype: str = field(default="float16", metadata={"help": "float16, bfloat16, or float32", "metavar": "DTYPE"})
    timestamp_probability: float = field(
        default=0.2, metadata={"help": "share of rows that distill trains with timestamps"}
    )
    prompt_probability: float = field(
        default=0.2, metadata={"help": "share of rows with previous_text that distill trains with it as the prompt"}
    )
    seed: int = field(default=42, metadata={"help": "seed of distill"})


VERB = Verb(
    "fastwhisper label",
    "Add a teacher's transcription to each row of a dataset, to train a student on it.\n\n"
    "To resume a killed run, run it again with the same options.",
    "fastwhisper label --model openai/whisper-large-v3 --dataset my_speech --language en --wer_filter 0.1 "
    "--output labels",
    [LabelArguments, DataArguments, SpeechArguments, DeviceArguments, CacheArguments, TrustArguments],
    notes="On several processes (on CPUs, use --multi_gpu as well):\n"
    "  accelerate launch --multi_gpu --num_processes 2 -m fastwhisper label ...",
)


def run(
    labels: LabelArguments,
    data: DataArguments,
    speech: SpeechArguments,
    device: DeviceArguments,
    cache: CacheArguments,
    trust: TrustArguments,
) -> None:
    """Label a dataset and print what was written."""
    import logging

    from ..labelling.label import label
    from ..labelling.pseudo_labels import this_process
    from ..progress import quiet_transformers

    quiet_transformers()
    if not this_process().is_main_process:
        logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    groups = (labels, data, speech, device, cache, trust)
    report = label(**{name: value for group in groups for name, value in given(group).items()})
    if report is None:
        return
    print(f"labelled {report.labelled} rows; {report.kept} of them are in {report.metadata}")
    if labels.wer_filter is not None:
        dropped = report.labelled - report.kept
        print(f"left out {dropped} whose label and reference differ by more than {labels.wer_filter:.0%} WER")
    if report.cache is not None:
        print(report.cache)


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
