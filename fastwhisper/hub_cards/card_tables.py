"""Turns records into the words and tables that all cards share; what was not recorded is left out."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .folder_records import CURVES_FILE, hub_name
from .measured_models import own_model, teacher_model

PREPARATION_SETTINGS = {
    "text_case": "case of the texts",
    "joined_probability": "share of the clips joined to longer rows",
    "timestamp_probability": "share of the rows with timestamps",
    "prompt_probability": "share of the rows with the text before",
}
TRAINING_SETTINGS = {
    "steps": "steps",
    "epochs": "epochs",
    "batch_size": "batch size",
    "learning_rate": "peak learning rate",
    "lr_scheduler_type": "learning rate schedule",
    "warmup_steps": "warm-up steps",
    "precision": "precision",
    "seed": "seed",
    "seconds": "seconds of training",
}


def count(number: int) -> str:
    """A readable count: `742.5 M`, `88.3 k`."""
    for size, unit in ((1_000_000_000, " B"), (1_000_000, " M"), (1_000, " k")):
        if number >= size:
            return f"{number / size:.2f}".rstrip("0").rstrip(".") + unit
    return str(number)


def quantity(number: float, unit: str) -> str:
    """Three digits of a number with its unit: `4.55 TFLOP`, `246 kB`."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{_three_digits(number / size)} {prefix}{unit}"
    return f"{_three_digits(number)} {unit}"


def _three_digits(number: float) -> str:
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def percent(rate: float) -> str:
    return f"{100 * rate:.2f} %"


def recorded(folder: Path, run: dict[str, Any], evaluation: dict[str, Any]) -> dict[str, Any]:
    """The variables of training and measurement that all templates share."""
    return {
        "measured": measured(evaluation),
        "training": {
            **named(run.get("training", {}), TRAINING_SETTINGS),
            **named(run.get("preparation", {}), PREPARATION_SETTINGS),
        },
        "curves": CURVES_FILE if (folder / CURVES_FILE).is_file() else None,
        "datasets": [hub_link(dataset, "datasets/") for dataset in run.get("datasets", [])],
    }


def measured(evaluation: dict[str, Any]) -> dict[str, Any] | None:
    """The table of models side by side and how they were measured; None if the card's own model was not."""
    if own_model(evaluation).get("wer") is None:
        return None
    models = [row for row in evaluation["models"] if row.get("wer") is not None]
    beams = _beams(evaluation)
    columns: dict[str, Callable[[dict], str | None]] = {
        "model": lambda row: f"{row.get('name')} ({row['role']})" if row["role"] else row.get("name"),
        "parameters": lambda row: _shown(row, "parameters", count),
        "WER": lambda row: _shown(row, "wer", percent),
        "CER": lambda row: _shown(row, "cer", percent),
        "substitutions": lambda row: _shown(row, "substitutions", str),
        "deletions": lambda row: _shown(row, "deletions", str),
        "insertions": lambda row: _shown(row, "insertions", str),
        "words": lambda row: _shown(row, "words", str),
    }
    if beams:
        # Beams cost time: a speed means nothing without their number.
        columns |= {
            f"real-time factor, {beams}": lambda row: _shown(row, "real_time_factor", "{:.4f}".format),
            "encoder, s": lambda row: _shown(row, "encoder_seconds", "{:.2f}".format),
            "decoder, s": lambda row: _shown(row, "decoder_seconds", "{:.2f}".format),
        }
    columns["peak memory, MB"] = lambda row: _shown(row, "peak_memory_bytes", lambda size: f"{size / 1e6:.0f}")
    cells = {name: [cell(row) for row in models] for name, cell in columns.items()}
    kept = {name: values for name, values in cells.items() if any(values)}
    return {
        "columns": list(kept),
        "rows": [[values[index] or "" for values in kept.values()] for index in range(len(models))],
        "comparison": _comparison(evaluation),
        "conditions": _conditions(evaluation),
        "command": _command(evaluation.get("command")),
    }


def _command(command: str | None) -> str | None:
    """A recorded command as typed: `python -m fastwhisper` records the path of the module's file."""
    return command and re.sub(r"^\S*__main__\.py\b", "python -m fastwhisper", command)


def named(values: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    """Recorded settings by their readable names, in the order of `names`."""
    return {names[name]: value_words(values[name]) for name in names if values.get(name) is not None}


def value_words(value: Any) -> str:
    """A readable setting."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(value_words, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _shown(row: dict[str, Any], name: str, words: Callable[[Any], str]) -> str | None:
    return None if row.get(name) is None else words(row[name])


def hub_link(name: str, kind: str = "") -> str:
    """The name, as a link if it can be that of a Hub repository."""
    return f"[{name}](https://huggingface.co/{kind}{name})" if hub_name(name) else name


def _comparison(evaluation: dict[str, Any]) -> str | None:
    """The student compared with its teacher; None if its teacher was not measured with it."""
    student, teacher = own_model(evaluation), teacher_model(evaluation)
    sentences = []
    if teacher.get("wer") is not None:
        points = 100 * (student["wer"] - teacher["wer"])
        if abs(points) < 0.005:
            sentences.append("The student's word error rate equals its teacher's.")
        else:
            word = "above" if points > 0 else "below"
            sentences.append(f"The student's word error rate is {abs(points):.2f} points {word} its teacher's.")
    own_factor, factor = student.get("real_time_factor"), teacher.get("real_time_factor")
    beams = _beams(evaluation)
    if own_factor and factor and beams:
        ratio = factor / own_factor
        sentences.append(f"The student transcribes {ratio:.2f} times as fast as its teacher, both with {beams}.")
    return " ".join(sentences) or None


def _beams(evaluation: dict[str, Any]) -> str | None:
    """The beams that all models were measured with: `1 beam`, `5 beams`."""
    return _shown(evaluation.get("settings") or {}, "num_beams", lambda beams: f"{beams} beam{'s' * (beams != 1)}")


def _conditions(evaluation: dict[str, Any]) -> list[str]:
    data, hardware = evaluation.get("dataset") or {}, evaluation.get("hardware") or {}
    settings, versions = evaluation.get("settings") or {}, evaluation.get("versions") or {}
    lines: list[tuple[str, list[str | None]]] = [
        (
            "Data",
            [
                _data_words(data),
                _shown(data, "rows", "{} rows".format),
                _minutes(data),
                _shown(data, "language", "language {}".format),
            ],
        ),
        (
            "Hardware",
            [
                hardware.get("processor"),
                _shown(hardware, "device", "device {}".format),
                _shown(hardware, "cores", "{} cores".format),
                _shown(hardware, "threads", "threads used: {}".format),
                _shown(hardware, "memory_bytes", lambda size: f"{size / 1e9:.1f} GB of memory"),
            ],
        ),
        ("Settings", [f"{name} {value}" for name, value in settings.items() if value not in (None, "")]),
        ("Seed", [_shown(evaluation, "seed", str)]),
        ("Versions", [f"{name} {version}" for name, version in versions.items() if version]),
    ]
    return [f"{title}: {', '.join(part for part in parts if part)}" for title, parts in lines if any(parts)]


def _data_words(data: dict[str, Any]) -> str | None:
    if not data.get("name"):
        return None
    inner = ", ".join(f"{part} {data[part]}" for part in ("config", "split") if data.get(part))
    return hub_link(data["name"], "datasets/") + (f" ({inner})" if inner else "")


def _minutes(data: dict[str, Any]) -> str | None:
    return _shown(data, "audio_seconds", lambda seconds: f"{seconds / 60:.1f} minutes of audio")


def error_limit(evaluation: dict[str, Any]) -> str:
    """What the measured errors do not show."""
    name = (evaluation.get("dataset") or {}).get("name") if own_model(evaluation) else None
    if name is None:
        return "No word error rate has been measured for this folder."
    return f"Errors were measured only on {name}; expect other rates for other voices, noise, words and languages."
