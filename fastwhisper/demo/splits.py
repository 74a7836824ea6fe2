"""A dataset of one's own in three parts: to train on, to watch the training with, and held out to measure on."""

import random
from dataclasses import dataclass

from datasets import Dataset

from ..errors import InputError

HELD_OUT_SHARE = 0.15
MOST_HELD_OUT = 100
VALIDATION_SHARE = 0.05
MOST_VALIDATION = 24
FEWEST_ROWS = 20


@dataclass(frozen=True)
class Parts:
    """The parts of a dataset.

    Args:
        training (`Dataset`): rows to train on.
        validation (`Dataset`): rows of the same speakers, to watch the training with.
        held_out (`Dataset`): rows to measure on, in the order of the dataset.
        held_out_speakers (`int`, *optional*): how many speak in them, none of whom is trained on; `None` where the
            rows do not say who speaks, and were drawn.
    """

    training: Dataset
    validation: Dataset
    held_out: Dataset
    held_out_speakers: int | None


def split_rows(rows: Dataset, seed: int, most_held_out: int = MOST_HELD_OUT) -> Parts:
    """Split rows by their column `speaker`, if it names two or more, or at random.

    A seventh of the rows, or a little more, is held out, whole speakers together, of which at most `most_held_out` are
    used.

    Args:
        rows (`Dataset`): rows in any order.
        seed (`int`): of the draws.
        most_held_out (`int`, *optional*, defaults to 100): rows to measure on.

    Raises:
        InputError: for fewer than 20 rows, or if one speaker has nearly all of them.
    """
    if len(rows) < FEWEST_ROWS:
        raise InputError(f"the dataset has {len(rows)} rows; the demo needs {FEWEST_ROWS} to train and measure on")
    rng = random.Random(seed)
    wanted = max(2, round(HELD_OUT_SHARE * len(rows)))
    speakers = list(rows["speaker"]) if "speaker" in rows.column_names else []
    held_out_speakers = None
    if len(set(speakers)) > 1:
        chosen = _speakers(speakers, wanted, rng)
        held_out = [index for index, speaker in enumerate(speakers) if speaker in chosen]
        held_out_speakers = len(chosen)
    else:
        held_out = rng.sample(range(len(rows)), wanted)
    rest = sorted(set(range(len(rows))) - set(held_out))
    if len(rest) < FEWEST_ROWS // 2:
        raise InputError(f"of {len(rows)} rows only {len(rest)} are left to train on: one speaker has the others")
    watched = rng.sample(rest, min(MOST_VALIDATION, max(1, round(VALIDATION_SHARE * len(rest)))))
    measured = sorted(rng.sample(held_out, min(most_held_out, len(held_out))))
    return Parts(
        training=rows.select(sorted(set(rest) - set(watched))),
        validation=rows.select(watched),
        held_out=rows.select(measured),
        held_out_speakers=held_out_speakers,
    )


def _speakers(speakers: list, wanted: int, rng: random.Random) -> set:
    """Speakers, drawn one by one until they have as many rows as wanted, but never all."""
    names = sorted(set(speakers), key=str)
    rng.shuffle(names)
    chosen: set = set()
    for name in names[:-1]:
        if sum(speaker in chosen for speaker in speakers) >= wanted:
            break
        chosen.add(name)
    return chosen
