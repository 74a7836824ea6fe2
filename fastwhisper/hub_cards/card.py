"""Writes the model card of a saved folder from the facts that lie in it."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..errors import InputError
from ..files import write_whole
from .card_metadata import eval_entries
from .card_tables import count
from .fastslm_card import fastslm_card_facts, fastslm_metadata
from .fastwhisper_card import fastwhisper_card_facts, fastwhisper_metadata
from .folder_records import EVALUATION_FILE, RUN_FILE, make_public, read_config, read_evaluation, read_run, write_facts

TEMPLATES = Path(__file__).parent / "templates"
START = "<!-- Measured: `fastwhisper card` rewrites all up to the end mark; what stands outside is kept. -->"
END = "<!-- End of what `fastwhisper card` rewrites. -->"
# Words of the card that transformers' Trainer writes by itself.
TRAINER_CARD = "generated automatically according to the information the Trainer had access to"
EVAL_RESULTS = Path(".eval_results") / "fastwhisper.yaml"


@dataclass(frozen=True)
class CardFamily:
    """How the card of a model family is made.

    Args:
        template (`str`): File in the folder of templates.
        facts (`Callable`): From folder, name, `config.json`, run and evaluation to all that the template needs.
        metadata (`Callable`): From name, `config.json`, run and evaluation to the metadata.
    """

    template: str
    facts: Callable[[Path, str, dict[str, Any], dict, dict], dict[str, Any]]
    metadata: Callable[[str, dict[str, Any], dict, dict], ModelCardData]


FAMILIES = {
    "whisper": CardFamily("fastwhisper.md", fastwhisper_card_facts, fastwhisper_metadata),
    "fastslm": CardFamily("fastslm.md", fastslm_card_facts, fastslm_metadata),
}


def write_card(folder: str | os.PathLike, name: str | None = None, overwrite: bool = False) -> Path:
    """Write README.md, and `.eval_results/` where a Hub data set was measured, from what the folder records.

    Read are `config.json`, the weights' shapes, `askd_run.json` (a training run), `evaluation.json` (a measurement)
    and `curves.png`. What is not there is not in the card. In a card that this function wrote before, the text
    outside its two marks and the metadata that it does not know are kept.

    Args:
        folder (`str` or `os.PathLike`): Holds a saved FastWhisper or FastSLM.
        name (`str`, *optional*): The model's name, best that of its Hub repository; the folder's by default.
        overwrite (`bool`, *optional*, defaults to `False`): Replace also a README.md that was written by hand.

    Returns:
        The path of the card.

    Raises:
        InputError: for a folder with no saved model, a record that is no JSON, and a README.md written by hand.
    """
    folder = Path(folder)
    for file, facts in ((RUN_FILE, read_run(folder)), (EVALUATION_FILE, read_evaluation(folder))):
        if facts:
            # These files are published with the card: no path of this machine in them.
            write_facts(folder / file, facts)
    card = render_card(folder, name, overwrite)
    _write_eval_results(folder / EVAL_RESULTS, eval_entries(read_evaluation(folder)))
    path = folder / "README.md"
    write_whole(path, card)
    return path


def render_card(folder: Path, name: str | None = None, overwrite: bool = False) -> str:
    """The text of the card that [`write_card`] writes.

    Raises:
        InputError: as [`write_card`].
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    config, run, evaluation = read_config(folder), read_run(folder), read_evaluation(folder)
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise InputError(
            f"{folder} holds a model of type {config.get('model_type')!r}; there are cards for {', '.join(FAMILIES)}"
        )
    name = name or make_public(folder.resolve().name)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["count"] = count
    body = environment.get_template(family.template).render(**family.facts(folder, name, config, run, evaluation))
    before, after, metadata = _kept(folder / "README.md", name, overwrite)
    metadata = {**metadata, **family.metadata(name, config, run, evaluation).to_dict()}
    text = f"\n{before.strip()}\n\n{START}\n\n{body.strip()}\n\n{END}\n\n{after.strip()}".rstrip()
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}\n"


def _write_eval_results(path: Path, entries: list[EvalResultEntry]) -> None:
    if entries:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    else:
        path.unlink(missing_ok=True)


def _kept(path: Path, name: str, overwrite: bool) -> tuple[str, str, dict[str, Any]]:
    """Text before and after the measured part of an existing card, and its metadata."""
    title = f"# {name.rpartition('/')[2]}"
    if not path.is_file():
        return title, "", {}
    card = ModelCard.load(path, ignore_metadata_errors=True)
    before, start, rest = card.text.partition(START)
    _, end, after = rest.partition(END)
    if start and end:
        return before, after, _known_before(card.data.to_dict())
    if overwrite or TRAINER_CARD in card.text or not card.text.strip():
        return title, "", {}
    raise InputError(f"{path} was written by hand; --overwrite replaces it")


def _known_before(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata without what a measurement decides: a result that is gone from the folder must go from the card."""
    decided = {"model-index", "metrics", "datasets", "base_model", "base_model_relation"}
    return {key: value for key, value in metadata.items() if key not in decided}
