"""`fastwhisper import`: a checkpoint of another engine as a folder of transformers."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given


@dataclass
class ImportArguments:
    """Import."""

    output: str = field(metadata={"help": "output folder; it must not exist yet", "metavar": "FOLDER"})
    tokenizer: str | None = field(
        default=None,
        metadata={
            "help": "name on the Hub or folder of a Whisper with the same vocabulary; default: what the checkpoint "
            "has, or openai's own"
        },
    )


VERB = Verb(
    "fastwhisper import",
    "Write a model of CTranslate2 (a folder with model.bin) or of openai-whisper (a .pt file) as a Whisper folder\n"
    "that transformers loads. Weights keep their values.",
    "fastwhisper import faster-whisper-finetuned --output finetuned",
    [ImportArguments],
    ("checkpoint", "folder or .pt file; put it before the flags"),
)


def run(checkpoints: Sequence[str], arguments: ImportArguments) -> None:
    """Write the folder and say so."""
    from ..conversion.import_model import import_model
    from ..errors import InputError
    from ..progress import quiet_transformers

    if len(checkpoints) != 1:
        raise InputError(f"give one CHECKPOINT, not {len(checkpoints)}; see fastwhisper import --help")
    quiet_transformers()
    print(f"wrote the model to {import_model(checkpoints[0], **given(arguments))}")


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
