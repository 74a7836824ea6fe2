"""The card of a FastWhisper: which layers of which Whisper it keeps, and how it was trained."""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from .card_metadata import MEASURED_TASK, all_tags, shared_metadata
from .card_tables import error_limit, hub_link, named, recorded
from .folder_records import count_parameters, hub_name
from .measured_models import teacher_model

ASKD_SETTINGS = {
    "teacher_weight": "weight of the teacher at the start, λ₀",
    "teacher_decay_end": "share of training at which it reaches 0, ρ",
    "schedule": "schedule of the teacher's weight",
    "mode": "self-distillation after the teacher (sequential) or beside it (joint)",
    "self_weight": "weight of the self-teacher at the end, α_T",
    "self_teacher": "self-teacher",
    "ema_decay": "decay per step of the moving average",
    "temperature": "temperature, τ",
    "token_gate": "teacher's term only on tokens where the teacher is better",
    "freeze_encoder": "encoder frozen",
    "encoder_learning_rate": "learning rate of the encoder",
    "encoder_weight": "weight of the squared distance to the teacher's encoder",
    "true_length": "trained at true length",
    "true_length_margin": "seconds of silence behind a clip",
    "full_length_probability": "share of the rows heard in a whole window all the same",
}


def fastwhisper_metadata(name: str, config: dict[str, Any], run: dict, evaluation: dict) -> ModelCardData:
    """The metadata of a FastWhisper's card."""
    teacher = hub_name(teacher_name(config, run))
    shared = shared_metadata(name, run, evaluation)
    return ModelCardData(
        **{**shared, "license": shared["license"] or run.get("teacher", {}).get("license")},
        pipeline_tag=MEASURED_TASK,
        base_model=teacher,
        base_model_relation="finetune" if teacher else None,
        tags=all_tags(["whisper", "fastwhisper", *(["distillation"] if is_student(config, run) else [])], run),
    )


def fastwhisper_values(folder: Path, name: str, config: dict[str, Any], run: dict, evaluation: dict) -> dict[str, Any]:
    """The variables of the FastWhisper template."""
    askd = run.get("askd", {})
    teacher = teacher_name(config, run)
    parameters = run.get("teacher", {}).get("parameters") or teacher_model(evaluation).get("parameters")
    return {
        "name": name,
        "student": {
            "decoder_layers": config["decoder_layers"],
            "encoder_layers": config["encoder_layers"],
            "parameters": count_parameters(folder),
        },
        "teacher": {
            "words": teacher and (hub_link(teacher) if hub_name(teacher) else f"`{teacher}`"),
            "decoder_layers": config.get("teacher_decoder_layers"),
            "encoder_layers": config.get("teacher_encoder_layers"),
            "parameters": parameters,
        },
        "layers": kept_layers(config),
        "askd": named(_used_settings(askd), ASKD_SETTINGS),
        # The trainer also trains on the gold text alone.
        "distilled": bool(askd.get("teacher_weight") or askd.get("self_weight")),
        "window": window_seconds(config),
        "true_length": bool(config.get("true_length")),
        "limits": [*run.get("limits", []), *_limits(config, run, evaluation)],
        "license": _license_words(teacher, run),
        **recorded(folder, run, evaluation),
    }


def window_seconds(config: dict[str, Any]) -> int | float:
    """Seconds of audio that the encoder takes at once: each position stands for two frames of 10 ms."""
    seconds = config["max_source_positions"] / 50
    return int(seconds) if seconds.is_integer() else seconds


def teacher_name(config: dict[str, Any], run: dict[str, Any]) -> str | None:
    """The teacher's name as recorded by the student, or by its training."""
    return config.get("teacher") or run.get("teacher", {}).get("name")


def is_student(config: dict[str, Any], run: dict[str, Any]) -> bool:
    """Whether the folder's records name a teacher; otherwise it is a Whisper like any other."""
    return teacher_name(config, run) is not None or config.get("teacher_decoder_layers") is not None


def kept_layers(config: dict[str, Any]) -> list[str]:
    """Which layers of the teacher the student was built from, one line per part."""
    lines = []
    for part in ("decoder", "encoder"):
        kept, available = config.get(f"{part}_layer_map"), config.get(f"teacher_{part}_layers")
        if kept and available:
            layers = ", ".join(str(layer) for layer in kept)
            some = f"layers {layers} of the teacher's {available} (counted from 0)"
            every = f"all layers of the teacher ({available})"
            lines.append(f"{part.capitalize()}: {every if len(kept) == available else some}")
    return lines


def _used_settings(askd: dict[str, Any]) -> dict[str, Any]:
    """The settings that mattered in the run: for instance no decay of an average that was not kept."""
    unused = {
        "ema_decay": askd.get("self_teacher") != "ema",
        "encoder_weight": not askd.get("encoder_weight"),
        **dict.fromkeys(("true_length", "true_length_margin", "full_length_probability"), not askd.get("true_length")),
    }
    return {name: value for name, value in askd.items() if not unused.get(name, False)}


def _limits(config: dict[str, Any], run: dict[str, Any], evaluation: dict[str, Any]) -> list[str]:
    window = window_seconds(config)
    short = (
        f"Its window is {window} seconds of audio, not 30: engines that expect 30 do not run it, and after the first "
        "window the segment times of transformers' pipeline are wrong (its word times are right)."
    )
    inherited = "It inherits the languages, blind spots and biases of the teacher that it was built from."
    return [
        error_limit(evaluation),
        *([short] if window != 30 else []),
        "Like any Whisper, it can write words that nobody said, especially on silence, music and noise.",
        *([inherited] if is_student(config, run) else []),
    ]


def _license_words(teacher: str | None, run: dict[str, Any]) -> str | None:
    if run.get("license"):
        return f"{run['license']}."
    license_name = run.get("teacher", {}).get("license")
    if not license_name:
        return None
    return f"{license_name}, the licence of its teacher{f' {teacher}' if teacher else ''}."
