"""`fastwhisper evaluate`: WER, CER, speed and memory of one model, or of several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given
from .shared_arguments import DataArguments, DeviceArguments, SpeechArguments, TrustArguments


@dataclass
class EvaluateArguments:
    """Models."""

    model: str = field(metadata={"help": "name on the Hub or folder of the model"})
    against: list[str] = field(
        default_factory=list, metadata={"help": "more models to measure on the same audio, for example the teacher"}
    )


@dataclass
class DecodingArguments:
    """Decoding."""

    batch_size: int = field(default=8, metadata={"help": "clips decoded together"})
    num_beams: int = field(default=1, metadata={"help": "beams for every model; 1 is greedy"})
    repeats: int = field(default=1, metadata={"help": "timed runs of each batch by each model; the median counts"})
    full_length: bool = field(
        default=False, metadata={"help": "give students that hear clips at their own length windows of 30 s, too"}
    )
    seed: int = field(default=0, metadata={"help": "seed for the sampling that long audio may fall back on"})


@dataclass
class OutputArguments:
    """Output."""

    output: str = field(default="evaluation.json", metadata={"help": "file for the JSON report", "metavar": "FILE"})
    predictions: str | None = field(
        default=None, metadata={"help": "JSON Lines file for each row's reference and hypotheses", "metavar": "FILE"}
    )


VERB = Verb(
    "fastwhisper evaluate",
    "Measure one or more Whispers on the same audio: WER, CER, speed, memory.",
    "fastwhisper evaluate --model student --against openai/whisper-small --dataset my_speech --split test "
    "--language en",
    [
        EvaluateArguments,
        DataArguments,
        SpeechArguments,
        DecodingArguments,
        DeviceArguments,
        TrustArguments,
        OutputArguments,
    ],
)


def run(
    models: EvaluateArguments,
    data: DataArguments,
    speech: SpeechArguments,
    decoding: DecodingArguments,
    device: DeviceArguments,
    trust: TrustArguments,
    output: OutputArguments,
) -> None:
    """Measure, print a table and write the report."""
    from pathlib import Path

    from rich.console import Console

    from ..evaluation.evaluate import evaluate
    from ..evaluation.report import comparison_table, write_report
    from ..files import check_writable
    from ..progress import quiet_transformers

    quiet_transformers()
    path = Path(output.output)
    check_writable(path)
    report = evaluate(
        **given(models),
        **given(data),
        **given(speech),
        **given(decoding),
        **given(device),
        **given(trust),
        predictions=output.predictions,
    )
    write_report(report, path)
    console = Console()
    console.print(comparison_table(report))
    console.print(f"report: {path}", soft_wrap=True)


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
