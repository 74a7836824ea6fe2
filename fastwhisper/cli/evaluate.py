"""`fastwhisper evaluate`: WER, CER, speed and memory of one model, or of two side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from .arguments import run_parsed

DESCRIPTION = "Measure a Whisper on a data set, or two in turns on the same audio: WER, CER, speed, memory."


@dataclass
class EvaluateArguments:
    """What is measured, on what, and how."""

    model: str = field(metadata={"help": "name or folder of the model"})
    data: str = field(
        metadata={"help": "name of a data set on the Hub, or a folder with metadata.csv, .tsv or .jsonl"}
    )
    against: str | None = field(
        default=None, metadata={"help": "name or folder of a second model, such as the teacher of the first"}
    )
    name: str | None = field(default=None, metadata={"help": "configuration of the data set"})
    split: str | None = field(default=None, metadata={"help": "split of the data set; needed where it has several"})
    audio_column: str = field(default="audio", metadata={"help": "column of the audio"})
    text_column: str = field(default="text", metadata={"help": "column of the true text"})
    limit: int | None = field(default=None, metadata={"help": "only the first rows, this many"})
    language: str | None = field(
        default=None, metadata={"help": "code or English name; by default the model's own, else each row's as heard"}
    )
    task: str = field(default="transcribe", metadata={"help": "transcribe or translate"})
    batch_size: int = field(default=8, metadata={"help": "clips that are decoded together"})
    num_beams: int = field(default=1, metadata={"help": "beams; 1 is greedy"})
    repeats: int = field(default=1, metadata={"help": "timed runs of each batch by each model; the median counts"})
    device: str | None = field(default=None, metadata={"help": "cpu or cuda; CUDA where there is one"})
    dtype: str | None = field(
        default=None, metadata={"help": "float32, float16 or bfloat16; float32 on the CPU, float16 on CUDA"}
    )
    seed: int = field(default=0, metadata={"help": "fixes the sampling of the fallback on long audio"})
    output: str = field(default="evaluation.json", metadata={"help": "the report as JSON"})
    predictions: str | None = field(
        default=None, metadata={"help": "a JSON Lines file to write: reference and hypotheses of each row"}
    )


def evaluate(arguments: EvaluateArguments) -> dict[str, Any]:
    """Measure, print a table, write the report, and return it.

    Raises:
        InputError: for a model, a data set, a row or an option that cannot be used; nothing is written then.
    """
    from pathlib import Path

    from rich.console import Console

    from ..data.loading import load_speech_dataset
    from ..evaluation.comparison import ComparisonSettings, compare_models
    from ..evaluation.report import comparison_table, write_report
    from ..files import check_writable
    from ..progress import quiet_transformers
    from ..transcription.checkpoints import display_name, load_checkpoint
    from ..transcription.decoding import GenerationOptions

    check_positive(batch_size=arguments.batch_size, num_beams=arguments.num_beams, repeats=arguments.repeats)
    quiet_transformers()
    report_path = Path(arguments.output)
    predictions = Path(arguments.predictions) if arguments.predictions else None
    for path in (report_path, predictions):
        if path is not None:
            check_writable(path)
    dataset = load_speech_dataset(
        arguments.data,
        name=arguments.name,
        split=arguments.split,
        audio_column=arguments.audio_column,
        text_column=arguments.text_column,
        limit=arguments.limit,
    )
    names = [arguments.model, *([arguments.against] if arguments.against else [])]
    shown = [display_name(name) for name in names]
    models = [
        (label if shown.count(label) == 1 else name, *load_checkpoint(name, arguments.device, arguments.dtype))
        for label, name in zip(shown, names, strict=True)
    ]
    settings = ComparisonSettings(
        generation=GenerationOptions(
            language=arguments.language,
            task=arguments.task,
            num_beams=arguments.num_beams,
            batch_size=arguments.batch_size,
            seed=arguments.seed,
        ),
        repeats=arguments.repeats,
        dataset={"name": display_name(arguments.data), "config": arguments.name, "split": arguments.split},
        folders={label: Path(name) for (label, *_), name in zip(models, names, strict=True) if Path(name).is_dir()},
    )
    report = compare_models(models, dataset, settings, predictions)
    write_report(report, report_path)
    console = Console()
    console.print(comparison_table(report))
    console.print(f"report: {report_path}", soft_wrap=True)
    return report


def check_positive(**numbers: int) -> None:
    """Check that flags are 1 or more.

    Raises:
        InputError: for the first that is not.
    """
    from ..errors import InputError

    for name, number in numbers.items():
        if number < 1:
            raise InputError(f"--{name} must be 1 or more, not {number}")


def main(argv: Sequence[str]) -> None:
    run_parsed("fastwhisper evaluate", DESCRIPTION, argv, EvaluateArguments, evaluate)
