"""`fastwhisper export`: a Whisper in the format of another engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given
from .shared_arguments import TrustArguments


@dataclass
class ExportArguments:
    """Export."""

    to: str = field(
        metadata={
            "help": "whisper (an ordinary Whisper folder), ctranslate2, onnx, ggml (whisper.cpp) or openai",
            "metavar": "ENGINE",
        }
    )
    output: str = field(metadata={"help": "output folder; it must not exist yet", "metavar": "FOLDER"})
    quantization: str | None = field(
        default=None,
        metadata={
            "help": "how weights are stored, where the engine has a choice: ctranslate2 int8, int8_float16, int16, "
            "float16, bfloat16, float32 and others; ggml float16 (default), q8_0; default: as they are saved",
            "metavar": "TYPE",
        },
    )


VERB = Verb(
    "fastwhisper export",
    "Write a Whisper, or a student of one, for another engine. The README.md in the folder has the call.",
    "fastwhisper export student --to ctranslate2 --quantization int8 --output student_int8",
    [ExportArguments, TrustArguments],
    ("model", "name on the Hub or folder of the model; put it before the flags"),
)


def run(models: Sequence[str], arguments: ExportArguments, trust: TrustArguments) -> None:
    """Write the folder and say so."""
    from ..conversion.export import export
    from ..errors import InputError
    from ..progress import quiet_transformers

    if len(models) != 1:
        raise InputError(f"give one MODEL, not {len(models)}; see fastwhisper export --help")
    quiet_transformers()
    folder = export(models[0], **given(arguments), **given(trust))
    print(f"wrote {arguments.to} to {folder}; {folder / 'README.md'} has the call")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
