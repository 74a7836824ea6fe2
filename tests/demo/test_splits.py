"""A dataset in three parts: nobody who is measured is trained on, and nothing is lost."""

import pytest
from datasets import Dataset

from fastwhisper.demo.splits import split_rows
from fastwhisper.errors import InputError


def rows(speakers: list[str | None] | None, count: int = 60) -> Dataset:
    columns = {"number": list(range(count)), "text": ["yes"] * count}
    return Dataset.from_dict(columns | ({"speaker": speakers} if speakers else {}))


def numbers(parts):
    return [set(part["number"]) for part in (parts.training, parts.validation, parts.held_out)]


@pytest.mark.parametrize("seed", range(5))
def test_no_speaker_is_trained_on_and_measured(seed):
    speakers = [f"speaker {index % 7}" for index in range(60)]
    parts = split_rows(rows(speakers), seed)
    training, validation, held_out = numbers(parts)
    assert training | validation | held_out == set(range(60))
    assert len(training) + len(validation) + len(held_out) == 60 and 9 <= len(held_out) <= 17
    heard = {speakers[number] for number in training | validation}
    measured = {speakers[number] for number in held_out}
    assert not heard & measured and parts.held_out_speakers == len(measured)


@pytest.mark.parametrize("speakers", [None, ["the same"] * 60, [None] * 60])
def test_without_speakers_rows_are_drawn(speakers):
    parts = split_rows(rows(speakers), seed=0)
    training, validation, held_out = numbers(parts)
    assert parts.held_out_speakers is None
    assert (len(training), len(validation), len(held_out)) == (48, 3, 9)
    assert training | validation | held_out == set(range(60))


def test_the_seed_decides():
    first, again, other = (numbers(split_rows(rows(None), seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_no_more_are_measured_than_asked_for_and_none_of_the_others_is_trained_on():
    speakers = ["a"] * 30 + ["b"] * 30
    parts = split_rows(rows(speakers), 0, most_held_out=5)
    training, validation, held_out = numbers(parts)
    assert len(held_out) == 5 and len(training | validation) == 30
    assert parts.held_out["number"][:] == sorted(held_out)


def test_too_little_is_refused():
    with pytest.raises(InputError, match="19 rows; the demo needs 20"):
        split_rows(rows(None, 19), 0)
    with pytest.raises(InputError, match="only 1 are left"):
        for seed in range(20):  # whoever is drawn first
            split_rows(rows(["a"] * 59 + ["b"]), seed)
