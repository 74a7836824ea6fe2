"""Writes the model card of a saved folder from what the folder records."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml
from transformers import PreTrainedConfig, WhisperConfig

from ..configuration.configuration_fastslm import FastSLMConfig
from ..configuration.configuration_fastwhisper import FastWhisperConfig
from ..errors import InputError
from ..evaluation.public_records import make_public
from ..files import write_whole
from ..model_folders import admit_language_model, check_model_folder, loading
from ..transcription.whisper_checks import check_config
from .card_metadata import eval_entries
from .card_tables import count
from .fastslm_card import fastslm_metadata, fastslm_values
from .fastwhisper_card import fastwhisper_metadata, fastwhisper_values, is_student, teacher_name
from .folder_records import (
    EVALUATION_FILE,
    RUN_FILE,
    read_config,
    read_evaluation,
    read_run,
    write_record,
)
from .measured_models import own_model, with_roles

logger = logging.getLogger(__name__)

TEMPLATES = Path(__file__).parent / "templates"
START = "<!-- Written by `fastwhisper card`, which replaces everything down to the end mark and keeps the rest. -->"
END = "<!-- End of what `fastwhisper card` replaces. -->"
# From the card that transformers' Trainer writes.
TRAINER_CARD = "generated automatically according to the information the Trainer had access to"
EVAL_RESULTS = Path(".eval_results") / "fastwhisper.yaml"


@dataclass(frozen=True)
class CardFamily:
    """How the card of a model family is made.

    Args:
        template (`str`): File in the folder of templates.
        values (`Callable`): From folder, name, `config.json`, run and evaluation to the template's variables.
        metadata (`Callable`): From name, `config.json`, run and evaluation to the metadata.
        config_class (`type`): Of `config.json`.
    """

    template: str
    values: Callable[[Path, str, dict[str, Any], dict, dict], dict[str, Any]]
    metadata: Callable[[str, dict[str, Any], dict, dict], ModelCardData]
    config_class: type[PreTrainedConfig]


FAMILIES = {
    "whisper": CardFamily("fastwhisper.md", fastwhisper_values, fastwhisper_metadata, FastWhisperConfig),
    "fastslm": CardFamily("fastslm.md", fastslm_values, fastslm_metadata, FastSLMConfig),
}


def write_card(
    folder: str | os.PathLike, name: str | None = None, overwrite: bool = False, trust_remote_code: bool = False
) -> Path:
    """Write README.md from what the folder records, and `.eval_results/` if it was measured on a dataset of the Hub.

    It reads `config.json`, the shapes of the weights, `training_run.json`, `evaluation.json` and `curves.png`; what is
    missing is left out. From an earlier card of this function it keeps the text outside the two marks and the
    metadata that it does not write itself.

    Args:
        folder (`str` or `os.PathLike`): Holds a saved FastWhisper or FastSLM.
        name (`str`, *optional*): The model's name, ideally that of its Hub repository; by default the folder's.
        overwrite (`bool`, *optional*, defaults to `False`): Replace even a README.md that was written by hand.
        trust_remote_code (`bool`, *optional*, defaults to `False`): Run code of its own that a FastSLM's language
            model needs for its configuration.

    Returns:
        The path of the card.

    Raises:
        InputError: for a folder without a model, for damaged records, or for a README.md written by hand.
    """
    folder = Path(folder)
    name = name or make_public(folder.resolve().name)
    config, run, evaluation = read_config(folder), read_run(folder), read_evaluation(folder)
    family = FAMILIES.get(config.get("model_type", ""))
    if family is None:
        raise InputError(
            f"{folder} holds a model of type {config.get('model_type')!r}; there are cards for {', '.join(FAMILIES)}"
        )
    admit_language_model(folder, check_model_folder(folder, trust_remote_code))
    with loading(folder, "config.json"):
        checked = family.config_class.from_pretrained(folder)
    if isinstance(checked, WhisperConfig):
        check_config(checked, str(folder))
    config = {**checked.to_dict(), **config}
    for file, record in ((RUN_FILE, run), (EVALUATION_FILE, evaluation)):
        if record:
            # These files are published with the card: they must not contain local paths.
            write_record(folder / file, record)
    own_role = "student" if is_student(config, run) else "model"
    measured = with_roles(evaluation, folder, name, own_role, teacher_name(config, run))
    if measured["models"] and not own_model(measured):
        logger.warning(
            "%s has no results for the model in %s, so the card shows none; measure it with fastwhisper evaluate",
            EVALUATION_FILE,
            folder,
        )
    values = family.values(folder, name, config, run, measured)
    metadata = family.metadata(name, config, run, measured).to_dict()
    path = folder / "README.md"
    card = _card_text(path, name, _render(family.template, values), metadata, overwrite)
    _write_eval_results(folder / EVAL_RESULTS, eval_entries(measured))
    write_whole(path, card)
    return path


def _render(template: str, values: dict[str, Any]) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters["count"] = count
    return environment.get_template(template).render(**values)


def _card_text(path: Path, name: str, body: str, metadata: dict[str, Any], overwrite: bool) -> str:
    """The card, with the text that an earlier one had around its marks."""
    before, after, known = _kept(path, name, overwrite)
    text = f"\n{before.strip()}\n\n{START}\n\n{body.strip()}\n\n{END}\n\n{after.strip()}".rstrip()
    return f"---\n{yaml.safe_dump({**known, **metadata}, sort_keys=False, allow_unicode=True)}---\n{text}\n"


def _write_eval_results(path: Path, entries: list[EvalResultEntry]) -> None:
    if entries:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    else:
        path.unlink(missing_ok=True)


def _kept(path: Path, name: str, overwrite: bool) -> tuple[str, str, dict[str, Any]]:
    """Text before and after the marks of an existing card, and its metadata."""
    title = f"# {name.rpartition('/')[2]}"
    if not path.is_file():
        return title, "", {}
    try:
        card = ModelCard.load(path, ignore_metadata_errors=True)
    except (yaml.YAMLError, ValueError) as error:
        if overwrite:
            return title, "", {}
        raise InputError(f"{path} cannot be read ({error}): fix it, or replace it with --overwrite") from error
    before, start, rest = card.text.partition(START)
    _, end, after = rest.partition(END)
    if start and end:
        return before, after, _known_before(card.data.to_dict())
    if overwrite or TRAINER_CARD in card.text or not card.text.strip():
        return title, "", {}
    raise InputError(f"{path} was written by hand; --overwrite replaces it")


def _known_before(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata except what the records decide: a result that is gone from the folder must go from the card."""
    decided = {"model-index", "metrics", "datasets", "base_model", "base_model_relation"}
    return {key: value for key, value in metadata.items() if key not in decided}
