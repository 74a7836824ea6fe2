"""One picture of a training run: the parts of its loss, their weights, and the word error rate."""

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LOSS_PARTS = {
    "loss": "loss (weighted)",
    "ce": "cross-entropy, gold text",
    "teacher_kl": "divergence, teacher",
    "self_kl": "divergence, self-teacher",
    "eval_loss": "loss, evaluation",
}
WEIGHTS = {
    "gold": "gold text, 1 - λ - α",
    "teacher_weight": "teacher, λ",
    "self_weight": "self-teacher, α",
}
COLOURS = {
    "loss": "#222222",
    "ce": "#1b7f5c",
    "gold": "#1b7f5c",
    "teacher_kl": "#c2541b",
    "teacher_weight": "#c2541b",
    "self_kl": "#3f5fb0",
    "self_weight": "#3f5fb0",
    "eval_loss": "#8a8a8a",
    "eval_wer": "#7a3b8f",
}


def plot_curves(log_history: list[dict[str, Any]], path: str | os.PathLike) -> bool:
    """Draw a run's loss parts, weights and word error rate over its steps, each where it was logged.

    Args:
        log_history (`list[dict]`):
            `trainer.state.log_history`. Losses in nats per target token, `eval_wer` as a fraction.
        path (`str` or `os.PathLike`):
            Path of the PNG.

    Returns:
        Whether there was anything to draw; if not, no file is written.
    """
    rows = [_shown(row) for row in log_history]
    draw = [
        panel
        for panel, names in ((_draw_losses, LOSS_PARTS), (_draw_weights, WEIGHTS), (_draw_wer, ("eval_wer",)))
        if any(_curve(rows, name)[0] for name in names)
    ]
    if not draw:
        return False
    # Figure without pyplot: needs no window system and leaves no global state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 2.6 * len(draw)), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(draw), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(all_axes, draw, strict=True):
        panel(axes, rows)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlim(left=0)
        axes.legend(frameon=False, fontsize=9, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    all_axes[-1].set_xlabel("training step")
    figure.align_ylabels(all_axes)
    figure.savefig(path, format="png")
    return True


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    """The row with the weight of the gold text, and without parts whose weight is 0: they were not computed."""
    if "teacher_weight" not in row or "self_weight" not in row:
        return row
    idle = {part for part, weight in (("teacher_kl", "teacher_weight"), ("self_kl", "self_weight")) if not row[weight]}
    shown = {name: value for name, value in row.items() if name not in idle}
    return {**shown, "gold": 1 - row["teacher_weight"] - row["self_weight"]}


def _curve(rows: list[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    points = {row["step"]: row[name] for row in rows if row.get(name) is not None and "step" in row}
    return sorted(points), [points[step] for step in sorted(points)]


def _draw_lines(axes: "Axes", rows: list[dict[str, Any]], labels: dict[str, str], marked: str = "") -> None:
    for name, label in labels.items():
        steps, values = _curve(rows, name)
        if steps:
            # A single point makes no line, and rare points get lost in one.
            marker = "o" if name == marked or len(steps) == 1 else None
            axes.plot(steps, values, label=label, color=COLOURS[name], marker=marker, markersize=4, linewidth=1.5)


def _draw_losses(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    _draw_lines(axes, rows, LOSS_PARTS, marked="eval_loss")
    axes.set_ylabel("nats per token")
    axes.set_ylim(bottom=0)


def _draw_weights(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    _draw_lines(axes, rows, WEIGHTS)
    axes.set_ylabel("weight in the loss")
    axes.set_ylim(-0.02, 1.02)


def _draw_wer(axes: "Axes", rows: list[dict[str, Any]]) -> None:
    percent = [{**row, "eval_wer": 100 * row["eval_wer"]} for row in rows if row.get("eval_wer") is not None]
    _draw_lines(axes, percent, {"eval_wer": "word error rate"}, marked="eval_wer")
    axes.set_ylabel("WER (%)")
    axes.set_ylim(bottom=0)
