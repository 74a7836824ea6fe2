"""A comparison on the screen and in a file."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from ..files import write_whole

_ROWS: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
    ("parameters", lambda model: f"{model['parameters'] / 1e6:.1f} M"),
    ("WER", lambda model: f"{model['wer']:.2%}"),
    ("CER", lambda model: f"{model['cer']:.2%}"),
    ("substitutions", lambda model: f"{model['substitutions']:,}"),
    ("deletions", lambda model: f"{model['deletions']:,}"),
    ("insertions", lambda model: f"{model['insertions']:,}"),
    ("real-time factor", lambda model: f"{model['real_time_factor']:.4f}"),
    ("times real time", lambda model: f"{model['speed']:.1f}"),
    ("seconds", lambda model: f"{model['seconds']:.2f}"),
    ("encoder seconds", lambda model: f"{model['encoder_seconds']:.2f}"),
    ("decoder seconds", lambda model: f"{model['decoder_seconds']:.2f}"),
    ("peak memory", lambda model: f"{model['peak_memory_bytes'] / 2**20:,.0f} MiB"),
)


def comparison_table(report: dict[str, Any]) -> Table:
    """The report of [`compare_models`] as a table, one column per model."""
    dataset, settings = report["dataset"], report["settings"]
    words = report["models"][0]["words"]
    title = f"{dataset['rows']} rows, {words} words, {dataset['audio_seconds']:.1f} s of audio"
    caption = (
        f"normaliser: {settings['normalizer']}, batch {settings['batch_size']}, beams {settings['num_beams']}, "
        f"{settings['dtype']}, {report['hardware']['device']}, {report['hardware']['threads']} threads"
    )
    if dataset["empty_references"]:
        caption += f"; {dataset['empty_references']} references are empty: words recognised there count as insertions"
    if report["speed_ratio"] is not None:
        first, second = (model["name"] for model in report["models"])
        ratio = report["speed_ratio"]
        speed = f"{ratio:.2f}x faster" if ratio >= 1 else f"{1 / ratio:.2f}x slower"
        caption = f"{first} is {speed} than {second}\n{caption}"
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("")
    for model in report["models"]:
        role = "" if model["role"] == "model" else f"\n({model['role']})"
        table.add_column(f"{model['name']}{role}", justify="right")
    for label, show in _ROWS:
        table.add_row(label, *(show(model) for model in report["models"]))
    return table


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON, completely or not at all."""
    write_whole(path, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
