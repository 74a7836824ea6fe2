"""How long to train on speech of one's own, from what there is of it, what a row costs, and the time there is."""

from dataclasses import dataclass

from .estimate import RowCosts

BATCH_SIZE = 8
# The learning rates of a student whose encoder is trained for true length, on hours of speech (README, True length).
LEARNING_RATE, ENCODER_LEARNING_RATE = 1e-4, 3e-5
JOINED_PROBABILITY = 0.5
FULL_LENGTH_PROBABILITY = 0.1
MOST_EPOCHS = 12
# Joined rows are seldom full to the brim.
_FILLED = 0.9


@dataclass(frozen=True)
class Recipe:
    """A training.

    Args:
        rows (`int`): rows of an epoch, about; clips that are joined are one row.
        steps (`int`): steps of `BATCH_SIZE` rows.
        seconds (`float`): how long it takes, about.
    """

    rows: int
    steps: int
    seconds: float

    @property
    def epochs(self) -> float:
        """How often each row is heard, about."""
        return self.steps * BATCH_SIZE / self.rows


def recipe_for(clip_seconds: list[float], window: float, costs: RowCosts, seconds: float) -> Recipe:
    r"""As many steps as fit the time, at most 12 epochs.

    In its first epoch a row costs the teacher and the student, later the student alone, as the teacher's states are
    kept. A student hears now and then, and in joined rows always, nearly a window; that costs it as much more as that
    is longer than a clip.

    Args:
        clip_seconds (`list[float]`): lengths of the clips to train on.
        window (`float`): seconds of the teacher's window.
        costs (`RowCosts`): of a clip of average length.
        seconds (`float`): time for the training.
    """
    clips, total = len(clip_seconds), sum(clip_seconds)
    joined = min(JOINED_PROBABILITY * clips, JOINED_PROBABILITY * total / (_FILLED * window))
    rows = max(1, round((1 - JOINED_PROBABILITY) * clips + joined))
    share_of_windows = min(1.0, joined / rows + FULL_LENGTH_PROBABILITY)
    longer = max(1.0, window * clips / max(total, 1e-9))
    student = costs.student * (1 - share_of_windows + share_of_windows * longer)
    first_epoch = rows * (costs.teacher + student)
    of_the_first = min(rows, seconds / (costs.teacher + student))
    of_others = max(0.0, seconds - first_epoch) / student
    steps = max(1, round(min(of_the_first + of_others, MOST_EPOCHS * rows) / BATCH_SIZE))
    taken = min(steps * BATCH_SIZE, rows) * costs.teacher + steps * BATCH_SIZE * student
    return Recipe(rows, steps, taken)
