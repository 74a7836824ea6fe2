"""The metadata of cards: only Hub names, and only what was recorded."""

from typing import Any

from huggingface_hub import EvalResult, EvalResultEntry

from .folder_records import hub_name
from .measured_models import own_model

MEASURED_TASK = "automatic-speech-recognition"
METRICS = {"wer": "WER (%)", "cer": "CER (%)"}


def shared_metadata(name: str, run: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """What the metadata of all families have in common, as arguments of `ModelCardData`."""
    results = eval_results(evaluation)
    datasets = [dataset for dataset in run.get("datasets", []) if hub_name(dataset)]
    return {
        "language": _language(run.get("language") or (evaluation.get("dataset") or {}).get("language")),
        "license": run.get("license"),
        "library_name": "transformers",
        "datasets": datasets or None,
        "metrics": sorted({result.metric_type for result in results}) or None,
        "model_name": name if results else None,
        "eval_results": results or None,
    }


def all_tags(own: list[str], run: dict[str, Any]) -> list[str]:
    """The family's tags and those that were given, each once."""
    return list(dict.fromkeys([*own, *run.get("tags", [])]))


def eval_results(evaluation: dict[str, Any]) -> list[EvalResult]:
    """The card's own model in the form of `model-index`; rates in percent, as usual in the Hub's cards for speech."""
    data, model = evaluation.get("dataset") or {}, own_model(evaluation)
    if not data.get("name"):
        return []
    return [
        EvalResult(
            task_type=MEASURED_TASK,
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
    """The word error rate in percent, in the form of `.eval_results/*.yaml`; only for data on the Hub."""
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


def _language(language: str | list[str] | None) -> str | list[str] | None:
    from ..data.languages import language_code

    if isinstance(language, list):
        return [code for code in map(language_code, language) if code] or None
    return language_code(language)
