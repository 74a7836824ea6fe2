"""The picture of a run shows what was logged, and nothing else."""

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastwhisper.hub_cards.curves import plot_curves

HISTORY = [
    {"step": 10, "loss": 3.0, "ce": 4.0, "teacher_kl": 2.0, "self_kl": 0.0, "teacher_weight": 0.8, "self_weight": 0.0},
    {"step": 20, "loss": 2.0, "ce": 2.0, "teacher_kl": 0.0, "self_kl": 0.1, "teacher_weight": 0.0, "self_weight": 0.5},
    {"step": 20, "eval_loss": 2.5, "eval_wer": 0.25, "epoch": 1.0},
    {"step": 20, "train_loss": 2.5, "train_runtime": 9.0},
]


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []
    save = Figure.savefig

    def keep(figure, *arguments, **settings):
        figures.append(figure)
        save(figure, *arguments, **settings)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def test_a_whole_run_has_three_panels_with_units(tmp_path, drawn):
    assert plot_curves(HISTORY, tmp_path / "curves.png")

    assert Image.open(tmp_path / "curves.png").format == "PNG"
    panels = drawn[0].axes
    assert [panel.get_ylabel() for panel in panels] == ["nats per token", "weight in the loss", "WER (%)"]
    assert panels[-1].get_xlabel() == "training step"
    curves = {line.get_label(): line.get_xydata().tolist() for panel in panels for line in panel.get_lines()}
    assert curves["word error rate"] == [[20, 25.0]]
    # A part whose weight is 0 was not computed: it is no measured 0.
    assert curves["divergence, teacher"] == [[10, 2.0]]
    assert curves["divergence, self-teacher"] == [[20, 0.1]]
    assert curves["gold text, 1 - λ - α"] == [[10, pytest.approx(0.2)], [20, 0.5]]


def test_a_stock_run_has_one_panel(tmp_path, drawn):
    assert plot_curves([{"step": 1, "loss": 2.0}], tmp_path / "curves.png")

    assert [line.get_label() for line in drawn[0].axes[0].get_lines()] == ["loss (weighted)"]
    assert len(drawn[0].axes) == 1


def test_nothing_logged_writes_nothing(tmp_path):
    assert not plot_curves([{"step": 1, "train_runtime": 3.0}], tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())
