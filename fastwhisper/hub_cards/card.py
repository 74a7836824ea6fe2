"""Writes the model card of a saved folder from the facts that lie in it."""

import os
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, EvalResultEntry, ModelCard, ModelCardData, eval_result_entries_to_yaml

from ..errors import InputError
from ..evaluation.writing import write_whole
from .card_facts import card_facts, own_model, teacher_name
from .facts import (
    EVALUATION_FILE,
    RUN_FILE,
    hub_name,
    make_public,
    read_config,
    read_evaluation,
    read_run,
    write_facts,
)

TEMPLATES = Path(__file__).parent / "templates"
START = "<!-- Measured: `fastwhisper card` rewrites all up to the end mark; what stands outside is kept. -->"
END = "<!-- End of what `fastwhisper card` rewrites. -->"
# Words of the card that transformers' Trainer writes by itself.
TRAINER_CARD = "generated automatically according to the information the Trainer had access to"
EVAL_RESULTS = Path(".eval_results") / "fastwhisper.yaml"
TASK = "automatic-speech-recognition"
METRICS = {"wer": "WER (%)", "cer": "CER (%)"}


def write_card(folder: str | os.PathLike, name: str | None = None, overwrite: bool = False) -> Path:
    """Write README.md, and `.eval_results/` where a Hub data set was measured, from what the folder records.

    Read are `config.json`, the weights' shapes, `askd_run.json` (a training run), `evaluation.json` (a measurement)
    and `curves.png`. What is not there is not in the card. In a card that this function wrote before, the text
    outside its two marks and the metadata that it does not know are kept.

    Args:
        folder (`str` or `os.PathLike`): Holds a saved FastWhisper.
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

    from .card_facts import count

    config, run, evaluation = read_config(folder), read_run(folder), read_evaluation(folder)
    if config.get("model_type") != "whisper":
        raise InputError(f"{folder} holds a model of type {config.get('model_type')!r}; there is a card for whisper")
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
    body = environment.get_template("fastwhisper.md").render(**card_facts(folder, name, config, run, evaluation))
    before, after, metadata = _kept(folder / "README.md", name, overwrite)
    metadata = {**metadata, **card_metadata(name, config, run, evaluation).to_dict()}
    text = f"\n{before.strip()}\n\n{START}\n\n{body.strip()}\n\n{END}\n\n{after.strip()}".rstrip()
    return f"---\n{yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)}---\n{text}\n"


def card_metadata(name: str, config: dict[str, Any], run: dict, evaluation: dict) -> ModelCardData:
    """The metadata of a card: only Hub names, and only what was recorded."""
    teacher = hub_name(teacher_name(config, run))
    results = eval_results(evaluation)
    datasets = [dataset for dataset in run.get("datasets", []) if hub_name(dataset)]
    language = run.get("language") or (evaluation.get("dataset") or {}).get("language")
    return ModelCardData(
        language=_language(language),
        license=run.get("teacher", {}).get("license"),
        library_name="transformers",
        pipeline_tag=TASK,
        base_model=teacher,
        base_model_relation="finetune" if teacher else None,
        datasets=datasets or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        tags=["whisper", "fastwhisper", "distillation"],
        model_name=name if results else None,
        eval_results=results or None,
    )


def eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The card's own model in the form of `model-index`; rates in percent, as the Hub's cards for speech have them."""
    data, model = evaluation.get("dataset") or {}, own_model(evaluation)
    if not data.get("name"):
        return []
    return [
        EvalResult(
            task_type=TASK,
            task_name="Automatic Speech Recognition",
            dataset_type=data["name"],
            dataset_name=" ".join(str(data[part]) for part in ("name", "config", "split") if data.get(part)),
            dataset_config=data.get("config"),
            dataset_split=data.get("split"),
            dataset_args={"language": data["language"]} if data.get("language") else None,
            metric_type=metric,
            metric_value=round(100 * model[metric], 2),
            metric_name=metric_name,
        )
        for metric, metric_name in METRICS.items()
        if model.get(metric) is not None
    ]


def eval_entries(evaluation: dict[str, Any]) -> list[EvalResultEntry]:
    """The word error rate in percent, in the form of `.eval_results/*.yaml`; only for data that is on the Hub."""
    data, model = evaluation.get("dataset") or {}, own_model(evaluation)
    dataset = hub_name(data.get("name"))
    if dataset is None or model.get("wer") is None:
        return []
    task = "_".join(str(data[part]).replace(".", "_") for part in ("config", "split") if data.get(part))
    return [
        EvalResultEntry(
            dataset_id=dataset,
            task_id=task or "default",
            value=round(100 * model["wer"], 2),
            notes="word error rate in percent, measured by this repository's author with fastwhisper evaluate",
        )
    ]


def _write_eval_results(path: Path, entries: list[EvalResultEntry]) -> None:
    if entries:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False))
    else:
        path.unlink(missing_ok=True)


def _language(language: str | list[str] | None) -> str | list[str] | None:
    from ..data.languages import language_code

    if isinstance(language, list):
        return [code for code in map(language_code, language) if code] or None
    return language_code(language)


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
