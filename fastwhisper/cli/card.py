"""`fastwhisper card`: write the model card of a saved folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import run_parsed


@dataclass
class CardArguments:
    """Options of `fastwhisper card`."""

    name: str = field(default="", metadata={"help": "the model's name in the card, such as OWNER/NAME on the Hub"})
    overwrite: bool = field(default=False, metadata={"help": "also replace a README.md that was written by hand"})


def card(folders: list[str], arguments: CardArguments) -> None:
    """Write the README.md of a folder from what the folder records, and print its path.

    Raises:
        InputError: for anything but one folder, for one that cannot be written in, and as [`write_card`].
    """
    from ..hub_cards.card import write_card

    if len(folders) != 1:
        raise InputError(f"give one folder, not {len(folders)}; see fastwhisper card --help")
    try:
        path = write_card(folders[0], name=arguments.name or None, overwrite=arguments.overwrite)
    except OSError as error:
        raise InputError(f"the card of {folders[0]} cannot be written: {error}") from error
    print(path)


def main(argv: Sequence[str]) -> None:
    run_parsed(
        "fastwhisper card",
        "Write the model card (README.md) of a saved folder from its config.json, weights, training_run.json,\n"
        "evaluation.json and curves.png. An earlier card keeps the text outside its two marks.",
        argv,
        CardArguments,
        card,
        positional=("folder", "folder of a saved FastWhisper or FastSLM"),
    )
