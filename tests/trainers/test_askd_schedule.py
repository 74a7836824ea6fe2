import math

import pytest

from fastwhisper import ASKDTrainingArguments
from fastwhisper.trainers.askd_schedule import MODES, SCHEDULES, gap_weight, self_weight_at, teacher_weight_at


@pytest.mark.parametrize(
    ("schedule", "mode", "progress", "expected"),
    [
        ("linear", "sequential", 0.0, 0.8),
        ("linear", "sequential", 0.35, 0.4),
        ("linear", "sequential", 0.7, 0.0),
        ("linear", "sequential", 0.9, 0.0),
        ("gap", "sequential", 0.35, 0.4),
        ("cosine", "sequential", 0.0, 0.8),
        ("cosine", "sequential", 0.175, 0.8 * 0.5 * (1 + math.cos(math.pi / 4))),
        ("cosine", "sequential", 0.7, 0.0),
        ("constant", "sequential", 1.0, 0.8),
        ("linear", "joint", 0.25, 0.6),
        ("linear", "joint", 1.0, 0.0),
    ],
)
def test_teacher_weight(schedule, mode, progress, expected):
    assert teacher_weight_at(progress, schedule, mode, 0.8, 0.7) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("mode", "progress", "expected"),
    [("sequential", 0.7, 0.0), ("sequential", 0.85, 0.25), ("sequential", 1.0, 0.5), ("joint", 0.5, 0.25)],
)
def test_self_weight(mode, progress, expected):
    assert self_weight_at(progress, "linear", mode, 0.5, 0.7, 0.0) == pytest.approx(expected)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("mode", MODES)
def test_the_labels_never_get_a_negative_weight(schedule, mode):
    for step in range(101):
        teacher = teacher_weight_at(step / 100, schedule, mode, 1.0, 0.7)
        assert teacher + self_weight_at(step / 100, schedule, mode, 1.0, 0.7, teacher) <= 1.0 + 1e-12


def test_teacher_to_the_end_leaves_no_room_for_the_self_teacher():
    assert self_weight_at(1.0, "linear", "sequential", 0.5, 1.0, 0.0) == 0.0


def test_gap():
    assert gap_weight(0.8, 0.8, student_ce=2.0, teacher_ce=1.0) == pytest.approx(0.4)
    assert gap_weight(0.3, 0.8, student_ce=2.0, teacher_ce=1.0) == pytest.approx(0.3)
    assert gap_weight(0.8, 0.8, student_ce=1.0, teacher_ce=1.5) == 0.0
    assert gap_weight(0.8, 0.8, student_ce=0.0, teacher_ce=0.0) == 0.0


@pytest.mark.parametrize(
    "setting",
    [
        {"schedule": "quadratic"},
        {"mode": "both"},
        {"self_teacher": "mean"},
        {"teacher_weight": 1.2},
        {"self_weight": -0.1},
        {"teacher_decay_end": 0.0},
        {"temperature": 0.0},
        {"loss_chunk_size": 0},
    ],
    ids=str,
)
def test_settings_outside_their_range_are_refused_by_name(setting, tmp_path):
    (name,) = setting
    with pytest.raises(ValueError, match=name):
        ASKDTrainingArguments(output_dir=str(tmp_path), **setting)
