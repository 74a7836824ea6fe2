import itertools

import numpy as np
import pytest

from benchmarks.askd.calibration import expected_calibration_error
from benchmarks.askd.plots import pareto_front
from benchmarks.askd.statistics import bootstrap, mean_and_deviation, paired_bootstrap


def test_the_interval_is_that_of_all_draws_of_four_clips():
    errors, others, words = [3.0, 0.0, 2.0, 1.0], [1.0, 1.0, 0.0, 1.0], [4, 7, 3, 6]
    rates = [
        sum(errors[clip] - others[clip] for clip in drawn) / sum(words[clip] for clip in drawn)
        for drawn in itertools.product(range(4), repeat=4)
    ]
    found = paired_bootstrap(errors, others, words)
    assert found.value == pytest.approx(3 / 20)
    assert (found.low, found.high) == pytest.approx(tuple(np.percentile(rates, (2.5, 97.5))), abs=0.02)


def test_a_difference_that_is_the_same_in_every_clip_is_sure():
    errors = [5.0, 0.0, 9.0, 2.0, 1.0]
    found = paired_bootstrap([one + 1 for one in errors], errors, [10] * 5)
    assert (found.value, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1)) and found.is_clear


def test_a_difference_of_nothing_is_not_clear():
    found = paired_bootstrap([1, 2, 3], [1, 2, 3], [4, 4, 4])
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0) and not found.is_clear


def test_the_draws_are_those_of_the_seed():
    errors, words = list(range(50)), [60] * 50
    assert bootstrap(errors, words) == bootstrap(errors, words) != bootstrap(errors, words, seed=1)


def test_deviation_of_a_sample():
    assert mean_and_deviation([0.1, 0.2, 0.3]) == pytest.approx((0.2, 0.1))
    assert mean_and_deviation([0.1]) == (pytest.approx(0.1), None)


def test_calibration_error_by_hand():
    # Bins of a fifth: (0.4, 0.6] has 0.5, right, and 0.6, wrong; (0.8, 1] has 0.9 and 1.0, both right.
    sure, right = [0.5, 0.6, 0.9, 1.0], [True, False, True, True]
    by_hand = (2 * abs(1 / 2 - (0.5 + 0.6) / 2) + 2 * abs(1 - (0.9 + 1.0) / 2)) / 4
    assert expected_calibration_error(np.array(sure), np.array(right), bins=5) == pytest.approx(by_hand, abs=1e-12)


def test_calibration_error_against_a_loop_in_float64():
    draws = np.random.default_rng(0)
    sure = draws.random(500).astype(np.float32)
    right = draws.random(500) < sure**2
    expected = 0.0
    for low in range(15):
        within = [index for index in range(500) if low / 15 < float(sure[index]) <= (low + 1) / 15]
        if within:
            gap = sum(float(right[index]) - float(sure[index]) for index in within) / len(within)
            expected += len(within) / 500 * abs(gap)
    assert expected_calibration_error(sure, right) == pytest.approx(expected, abs=1e-12)


def test_pareto_front():
    assert pareto_front([(3, 1), (1, 5), (2, 6), (2, 3), (4, 1)]) == [(1, 5), (2, 3), (3, 1)]
