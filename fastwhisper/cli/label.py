"""`fastwhisper label`: transcribe a dataset with a teacher (pseudo-labels)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .arguments import run_parsed

if TYPE_CHECKING:
    from ..labelling.pseudo_labels import LabelReport

PROGRAM = "fastwhisper label"
DESCRIPTION = """Write a teacher's transcription beside each row of a dataset, for training a student on it.

Killed and run again with the same options it goes on where it was. On several processes:
accelerate launch --multi_gpu --num_processes 2 -m fastwhisper label ...  (the flag is right for CPUs too)"""


@dataclass
class LabelArguments:
    """Options of `fastwhisper label`."""

    model: str = field(metadata={"help": "Whisper teacher: a name on the Hub or a folder"})
    dataset: str = field(
        metadata={"help": "dataset on the Hub, folder with metadata.csv/tsv/jsonl, or folder of audio"}
    )
    output: str = field(metadata={"help": "new folder for metadata.jsonl, or that of a run to go on with"})
    name: str | None = field(default=None, metadata={"help": "configuration of a dataset on the Hub"})
    split: str | None = field(default=None, metadata={"help": "split, where the dataset has several"})
    audio_column: str = field(default="audio", metadata={"help": "column with the audio"})
    text_column: str = field(default="text", metadata={"help": "column with the reference, if there is one"})
    language: str | None = field(
        default=None, metadata={"help": "code or English name; heard in the audio by default"}
    )
    task: str = field(default="transcribe", metadata={"help": "transcribe, or translate into English"})
    timestamps: bool = field(default=True, metadata={"help": "write timestamped_text too; --no_timestamps is faster"})
    wer_filter: float | None = field(
        default=None,
        metadata={"help": "drop rows whose label and reference disagree by more than this WER, such as 0.1"},
    )
    batch_size: int = field(default=16, metadata={"help": "clips that are decoded together"})
    limit: int | None = field(default=None, metadata={"help": "label the first rows only"})
    streaming: bool = field(default=False, metadata={"help": "read the dataset as a stream, without downloading it"})
    dtype: str | None = field(
        default=None, metadata={"help": "float32, float16 or bfloat16; by default float32 on CPU, else float16"}
    )


def main(argv: Sequence[str]) -> None:
    """Parse `argv` and label."""
    run_parsed(PROGRAM, DESCRIPTION, argv, LabelArguments, label)


def label(arguments: LabelArguments) -> "LabelReport | None":
    """Label a dataset, and print what was written.

    Returns:
        `LabelReport`, or `None` on every process but the first.

    Raises:
        InputError: for a model, dataset, option or output folder that cannot be used.
    """
    import logging
    from pathlib import Path

    import transformers

    from ..data.loading import load_speech_dataset
    from ..errors import InputError
    from ..labelling.pseudo_labels import LabelSettings, label_dataset, this_process
    from ..transcription.checkpoints import load_checkpoint
    from ..transcription.decoding import GenerationOptions

    if arguments.batch_size < 1:
        raise InputError(f"batch_size={arguments.batch_size}: it must be at least 1")
    if arguments.wer_filter is not None and arguments.wer_filter < 0:
        raise InputError(f"wer_filter={arguments.wer_filter}: it must be at least 0")
    # Its bar of weights would stand before an error that is to be one line, and its warnings are not the user's.
    transformers.logging.disable_progress_bar()
    transformers.logging.set_verbosity_error()
    state = this_process()
    if not state.is_main_process:
        logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    with state.local_main_process_first():
        dataset = load_speech_dataset(
            arguments.dataset,
            name=arguments.name,
            split=arguments.split,
            audio_column=arguments.audio_column,
            text_column=arguments.text_column,
            streaming=arguments.streaming,
            limit=arguments.limit,
            require_text=arguments.wer_filter is not None,
        )
        model, processor = load_checkpoint(arguments.model, str(state.device), arguments.dtype)
    options = GenerationOptions(
        language=arguments.language,
        task=arguments.task,
        timestamps=arguments.timestamps,
        batch_size=arguments.batch_size,
    )
    names = ("model", "dataset", "name", "split", "audio_column", "text_column", "limit", "dtype")
    source = {name: vars(arguments)[name] for name in names}
    settings = LabelSettings(options, source)
    report = label_dataset(model, processor, dataset, Path(arguments.output), settings, arguments.wer_filter)
    if report is not None:
        print(f"labelled {report.labelled} rows, {report.kept} of them in {report.metadata}")
        if arguments.wer_filter is not None:
            dropped = report.labelled - report.kept
            print(f"dropped {dropped} whose label and reference disagree by more than {arguments.wer_filter:.0%} WER")
    return report
