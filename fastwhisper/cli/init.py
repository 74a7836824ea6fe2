"""`fastwhisper init`: an untrained student from a Whisper teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .arguments import run_parsed

DESCRIPTION = "Build an untrained student from maximally spaced layers of a Whisper teacher."


@dataclass
class InitArguments:
    """Which teacher, which layers, and where the student goes."""

    teacher: str = field(metadata={"help": "name or folder of a Whisper"})
    output: str = field(metadata={"help": "folder to write; it must not exist yet"})
    decoder_layers: int = field(default=4, metadata={"help": "decoder layers of the student"})
    encoder_layers: int | None = field(
        default=None, metadata={"help": "encoder layers of the student; all of the teacher's by default"}
    )


def init(arguments: InitArguments) -> Path:
    """Write the student and its processor as a Hub-ready folder. Returns the folder.

    Raises:
        InputError: where the output exists, and for a teacher that is no Whisper.
        ValueError: for layers that the teacher does not have.
    """
    import tempfile

    from ..errors import InputError
    from ..hub_cards.export import export_folder
    from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
    from ..progress import quiet_transformers
    from ..transcription.checkpoints import load_processor

    folder = Path(arguments.output)
    if folder.exists():
        raise InputError(f"{folder} exists: choose a folder that does not, or remove it")
    quiet_transformers()
    processor = load_processor(arguments.teacher)
    student = FastWhisperForConditionalGeneration.from_teacher(
        arguments.teacher, arguments.decoder_layers, arguments.encoder_layers
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
        export_folder(student, processor, Path(staging) / "student").rename(folder)
    config = student.config
    print(
        f"{folder}: encoder {config.encoder_layers} of {config.teacher_encoder_layers} layers, decoder "
        f"{config.decoder_layers} of {config.teacher_decoder_layers} (teacher layers {config.decoder_layer_map}), "
        f"{student.num_parameters() / 1e6:.1f} M parameters; train it with fastwhisper distill"
    )
    return folder


def main(argv: Sequence[str]) -> None:
    run_parsed("fastwhisper init", DESCRIPTION, argv, InitArguments, init)
