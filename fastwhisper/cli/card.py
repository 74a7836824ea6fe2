"""`fastwhisper card`: write the model card of a saved folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import Verb, given
from .shared_arguments import TrustArguments


@dataclass
class CardArguments:
    """Card."""

    name: str = field(
        default="", metadata={"help": "the model's name in the card, ideally that of its repository: OWNER/NAME"}
    )
    overwrite: bool = field(default=False, metadata={"help": "replace even a README.md that was written by hand"})


VERB = Verb(
    "fastwhisper card",
    "Write the model card (README.md) of a saved folder from its config.json, weights, training_run.json,\n"
    "evaluation.json and curves.png. Text outside the two marks of an earlier card is kept.",
    "fastwhisper card student --name OWNER/NAME",
    [CardArguments, TrustArguments],
    positional=("folder", "folder of a saved FastWhisper or FastSLM"),
)


def run(folders: list[str], arguments: CardArguments, trust: TrustArguments) -> None:
    """Write the card of a folder and print its path."""
    from ..hub_cards.card import write_card

    if len(folders) != 1:
        raise InputError(f"give one folder, not {len(folders)}; see fastwhisper card --help")
    try:
        path = write_card(folders[0], name=arguments.name or None, overwrite=arguments.overwrite, **given(trust))
    except OSError as error:
        raise InputError(f"the card of {folders[0]} cannot be written: {error}") from error
    print(path)


def main(argv: Sequence[str]) -> None:
    VERB.run(argv, run)
