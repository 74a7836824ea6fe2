"""`fastwhisper card`: rewrite the model card of a saved folder."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import InputError
from .arguments import run_parsed


@dataclass
class CardArguments:
    """Options of `fastwhisper card`."""

    name: str = field(default="", metadata={"help": "the model's name in the card, such as OWNER/NAME on the Hub"})
    overwrite: bool = field(default=False, metadata={"help": "replace also a README.md that was written by hand"})


def card(folders: list[str], arguments: CardArguments) -> None:
    """Rewrite the README.md of a folder from what it records, and print its path.

    Raises:
        InputError: for anything but one folder, and as [`write_card`].
    """
    from ..hub_cards.card import write_card

    if len(folders) != 1:
        raise InputError(f"give one folder, not {len(folders)}; see fastwhisper card --help")
    print(write_card(folders[0], name=arguments.name or None, overwrite=arguments.overwrite))


def main(argv: Sequence[str]) -> None:
    run_parsed(
        "fastwhisper card",
        "Rewrite the model card (README.md) of a saved folder from its config.json, weights, askd_run.json,\n"
        "evaluation.json and curves.png. Text outside the two marks of an earlier card is kept.",
        argv,
        CardArguments,
        card,
        positional=("folder", "folder of a saved FastWhisper or FastSLM"),
    )
