"""As many steps as fit the time, with numbers worked out by hand; and what a row costs."""

import pytest
import torch

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.collator import SpeechCollator
from fastwhisper.demo.estimate import RowCosts, row_costs
from fastwhisper.demo.recipes import BATCH_SIZE, MOST_EPOCHS, recipe_for

from ..recordings import tiny_processor
from ..sounds import tone

COSTS = RowCosts(teacher=2.0, student=0.1, bfloat16=False)


def test_the_time_is_spent():
    # 1,000 clips of 3 s: 500 alone, 500 in 500 * 3 / 27 = 56 rows; 20 % of 556 rows cost ten times as much.
    clips, student = [3.0] * 1000, 0.1 * (0.8 + 0.2 * 10)
    recipe = recipe_for(clips, 30.0, COSTS, seconds=3600.0)
    assert recipe.rows == 556
    heard = 556 + (3600 - 556 * (2 + student)) / student
    assert recipe.steps * BATCH_SIZE == pytest.approx(min(heard, MOST_EPOCHS * 556), rel=0.01)
    assert recipe.seconds <= 3610.0


def test_in_little_time_not_every_row_is_heard():
    recipe = recipe_for([3.0] * 1000, 30.0, COSTS, seconds=60.0)
    assert recipe.epochs < 0.1
    assert recipe.seconds == pytest.approx(60.0, rel=0.3)


def test_nothing_is_heard_too_often():
    recipe = recipe_for([3.0] * 20, 30.0, RowCosts(1e-3, 1e-3, False), seconds=3600.0)
    assert recipe.epochs == pytest.approx(MOST_EPOCHS, rel=0.1)


def test_there_is_always_a_step():
    assert recipe_for([30.0], 30.0, COSTS, seconds=1e-3).steps == 1


def test_costs_are_measured_on_both_models(demo_tokenizer, teacher):
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=1)
    collate = SpeechCollator(tiny_processor(demo_tokenizer), language="en")
    rows = [{"audio": {"array": tone(0.5), "sampling_rate": 16_000}, "text": "yes please"}] * 3
    costs = row_costs(teacher, student, collate, rows, torch.device("cpu"))
    assert 0 < costs.student < 10 and 0 < costs.teacher < 10
    assert all(weight.grad is None for weight in student.parameters())
