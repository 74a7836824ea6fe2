"""`fastwhisper init`: an untrained student from a Whisper teacher."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from .arguments import Verb, given
from .shared_arguments import TrustArguments


@dataclass
class InitArguments:
    """Student."""

    teacher: str = field(metadata={"help": "name on the Hub or folder of a Whisper"})
    output: str = field(metadata={"help": "output folder; it must not exist yet", "metavar": "FOLDER"})
    decoder_layers: int = field(default=4, metadata={"help": "decoder layers of the student"})
    encoder_layers: int | None = field(
        default=None, metadata={"help": "encoder layers of the student (default: all of the teacher's)"}
    )


VERB = Verb(
    "fastwhisper init",
    "Build an untrained student from evenly spaced layers of a Whisper teacher.",
    "fastwhisper init --teacher openai/whisper-small --decoder_layers 2 --output untrained",
    [InitArguments, TrustArguments],
)


def run(arguments: InitArguments, trust: TrustArguments) -> None:
    """Write the student and its processor, and print its size."""
    from ..hub_cards.new_student import write_new_student
    from ..progress import quiet_transformers

    quiet_transformers()
    student = write_new_student(
        arguments.teacher, arguments.output, arguments.decoder_layers, arguments.encoder_layers, **given(trust)
    )
    config = student.config
    print(
        f"{arguments.output}: encoder {config.encoder_layers} of {config.teacher_encoder_layers} layers, decoder "
        f"{config.decoder_layers} of {config.teacher_decoder_layers} (teacher layers {config.decoder_layer_map}), "
        f"{student.num_parameters() / 1e6:.1f} M parameters; train it with fastwhisper distill"
    )


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
