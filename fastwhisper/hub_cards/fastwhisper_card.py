"""The card of a FastWhisper: a student of a Whisper, by the layers that it kept."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from .card_metadata import MEASURED_TASK, all_tags, shared_metadata
from .card_tables import ASKD_NAMES, error_limit, hub_link, named, recorded, teacher_model
from .folder_records import count_parameters, hub_name


def fastwhisper_metadata(name: str, config: dict[str, Any], run: dict, evaluation: dict) -> ModelCardData:
    """The metadata of the card of a FastWhisper."""
    teacher = hub_name(teacher_name(config, run))
    shared = shared_metadata(name, run, evaluation)
    return ModelCardData(
        **{**shared, "license": shared["license"] or run.get("teacher", {}).get("license")},
        pipeline_tag=MEASURED_TASK,
        base_model=teacher,
        base_model_relation="finetune" if teacher else None,
        tags=all_tags(["whisper", "fastwhisper", "distillation"], run),
    )


def fastwhisper_card_facts(
    folder: Path, name: str, config: dict[str, Any], run: dict, evaluation: dict
) -> dict[str, Any]:
    """All that the template of FastWhisper needs, by the names that it uses."""
    teacher = {
        "name": teacher_name(config, run),
        "decoder_layers": config.get("teacher_decoder_layers"),
        "encoder_layers": config.get("teacher_encoder_layers"),
        "parameters": run.get("teacher", {}).get("parameters") or teacher_model(evaluation).get("parameters"),
    }
    teacher["link"] = hub_link(teacher["name"]) if teacher["name"] else None
    return {
        "name": name,
        "student": {
            "decoder_layers": config["decoder_layers"],
            "encoder_layers": config["encoder_layers"],
            "parameters": count_parameters(folder),
        },
        "teacher": teacher,
        "layers": kept_layers(config),
        "askd": named(_used_settings(run.get("askd", {})), ASKD_NAMES),
        "window": window_seconds(config),
        "limits": [*run.get("limits", []), *_limits(config, evaluation)],
        "license": _license_words(teacher["name"], run),
        **recorded(folder, run, evaluation),
    }


def window_seconds(config: dict[str, Any]) -> int | float:
    """Seconds of audio that the encoder takes at once: two frames of 10 ms a position."""
    seconds = config["max_source_positions"] / 50
    return int(seconds) if seconds.is_integer() else seconds


def teacher_name(config: dict[str, Any], run: dict[str, Any]) -> str | None:
    return config.get("teacher") or run.get("teacher", {}).get("name")


def kept_layers(config: dict[str, Any]) -> list[str]:
    """Which layers of the teacher the student was built from."""
    lines = []
    for part in ("decoder", "encoder"):
        kept, available = config.get(f"{part}_layer_map"), config.get(f"teacher_{part}_layers")
        if kept and available:
            layers = ", ".join(str(layer) for layer in kept)
            some = f"layers {layers} of the teacher's {available} (counted from 0)"
            every = f"all {available} layers of the teacher's"
            lines.append(f"{part.capitalize()}: {every if len(kept) == available else some}")
    return lines


def _used_settings(askd: dict[str, Any]) -> dict[str, Any]:
    """The settings that had a part in the run: no decay of an average that was not kept."""
    return {name: value for name, value in askd.items() if name != "ema_decay" or askd.get("self_teacher") == "ema"}


def _limits(config: dict[str, Any], evaluation: dict[str, Any]) -> list[str]:
    window = window_seconds(config)
    short = (
        f"Its window is {window} seconds of audio, not 30: engines that take 30 for granted do not run it, and beyond "
        "the first window the segment times of transformers' pipeline are wrong; its word times are right."
    )
    return [
        error_limit(evaluation),
        *([short] if window != 30 else []),
        "Like any Whisper it can write words that nobody said, above all on silence, music and noise.",
        "It inherits the languages, the blind spots and the biases of the teacher whose layers it was built from.",
    ]


def _license_words(teacher: str | None, run: dict[str, Any]) -> str | None:
    if run.get("license"):
        return f"{run['license']}."
    license_name = run.get("teacher", {}).get("license")
    if not license_name:
        return None
    return f"{license_name}, the licence of its teacher{f' {teacher}' if teacher else ''}."
