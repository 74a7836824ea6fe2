"""The plots of the report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PARTS = {
    "ce": ("cross-entropy", "#1b7f5c"),
    "teacher_kl": ("divergence, teacher", "#c2541b"),
    "self_kl": ("divergence, self-teacher", "#3f5fb0"),
}
WEIGHTS = {"teacher_kl": "teacher_weight", "self_kl": "self_weight"}
COLUMNS = 4


def plot_error_rates(rows: Sequence[Result], speech_set: str, path: Path) -> bool:
    """WER with its interval of every row, a dot a seed; the first row is a line through all. Whether there was any."""
    shown = [row for row in rows if row.has(speech_set)]
    if len(shown) < 2:
        return False
    figure = _figure(8, 1.2 + 0.42 * len(shown))
    axes = figure.subplots()
    for place, row in enumerate(reversed(shown)):
        interval = row.interval(speech_set)
        middle = 100 * interval.value
        spread = [[middle - 100 * interval.low], [100 * interval.high - middle]]
        axes.errorbar(middle, place, xerr=spread, fmt="o", color="#222222", capsize=3, linewidth=1.2)
        seeds = [100 * value for value in row.values(speech_set, "wer")]
        if len(seeds) > 1:
            axes.plot(seeds, [place - 0.22] * len(seeds), ".", color="#c2541b", markersize=5)
    if rows[0].has(speech_set):
        axes.axvline(100 * rows[0].values(speech_set, "wer")[0], color="#8a8a8a", linewidth=1, linestyle="--")
    axes.set_yticks(range(len(shown)), [row.name for row in reversed(shown)])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlabel(f"WER on {speech_set} (%): mean of the seeds with 95 % interval, and each seed")
    _tidy(axes)
    figure.savefig(path, format="png")
    return True


def plot_losses(rows: Sequence[Result], path: Path) -> bool:
    """Loss parts over the steps, with their weights as thin lines, of the first seed of every arm. Whether any was."""
    shown = [row for row in rows if row and row.lines[0].get("curve")]
    if not shown:
        return False
    height = -(-len(shown) // COLUMNS)
    figure = _figure(3.2 * min(COLUMNS, len(shown)), 0.6 + 2.5 * height)
    all_axes = figure.subplots(height, min(COLUMNS, len(shown)), squeeze=False, sharex=False, sharey=True)
    for row, axes in zip(shown, all_axes.flat, strict=False):
        _draw_run(axes, row.lines[0]["curve"])
        axes.set_title(row.name, fontsize=9)
        _tidy(axes)
    for axes in all_axes.flat[len(shown) :]:
        axes.set_visible(False)
    for axes in all_axes[:, 0]:
        axes.set_ylabel("nats a token")
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, label=label) for label, colour in PARTS.values()]
    handles.append(Line2D([], [], color="#222222", linestyle=":", label="its weight in the loss"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    figure.savefig(path, format="png")
    return True


def plot_speed(rows: Mapping[str, Result], speech_set: str, path: Path) -> bool:
    """WER against real-time factor, with the front of those that no other beats in both. Whether there was any."""
    found = {
        name: (factor, 100 * row.mean(speech_set, "wer")[0])
        for name, row in rows.items()
        if (factor := row.mean_of("speed", "real_time_factor")) is not None
    }
    if len(found) < 2:
        return False
    figure = _figure(8, 5)
    axes = figure.subplots()
    front = pareto_front(list(found.values()))
    axes.step(*zip(*front, strict=True), where="post", color="#c2541b", linewidth=1)
    for name, (factor, rate) in found.items():
        axes.plot(factor, rate, "o", color="#222222", markersize=4)
        axes.annotate(name, (factor, rate), xytext=(4, 3), textcoords="offset points", fontsize=7)
    axes.set_xscale("log")
    axes.set_xlabel("real-time factor, batch 1 (less is faster)")
    axes.set_ylabel(f"WER on {speech_set} (%)")
    _tidy(axes)
    figure.savefig(path, format="png")
    return True


def pareto_front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that no other is below or equal to in both, the first coordinate ascending."""
    front: list[tuple[float, float]] = []
    for point in sorted(points):
        if not front or point[1] < front[-1][1]:
            front.append(point)
    return front


def _draw_run(axes: "Axes", curve: list[dict[str, Any]]) -> None:
    weights = axes.twinx()
    for part, (_, colour) in PARTS.items():
        # A part without a weight was not computed.
        points = [line for line in curve if part in line and (part == "ce" or line.get(WEIGHTS[part], 0.0) > 0.0)]
        axes.plot([line["step"] for line in points], [line[part] for line in points], color=colour, linewidth=1.4)
        if part in WEIGHTS:
            steps, values = zip(*((line["step"], line.get(WEIGHTS[part], 0.0)) for line in curve), strict=True)
            weights.plot(steps, values, color=colour, linewidth=1, linestyle=":")
    weights.set_ylim(-0.02, 1.02)
    weights.tick_params(labelsize=7)
    axes.set_ylim(bottom=0)
    axes.tick_params(labelsize=7)


def _figure(width: float, height: float) -> "Figure":
    # Figure without pyplot: needs no window system and leaves no global state behind.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _tidy(axes: "Axes") -> None:
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
