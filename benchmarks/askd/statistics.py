"""How sure a difference between two word error rates is."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

_CHUNK = 1000  # draws at a time


@dataclass(frozen=True)
class Interval:
    """A value with the bounds between which 95 % of the bootstrap's draws lie."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether 0 is outside."""
        return self.low > 0.0 or self.high < 0.0


def paired_bootstrap(
    errors: Sequence[float], others: Sequence[float], words: Sequence[int], draws: int = 10_000, seed: int = 0
) -> Interval:
    """The difference of two word error rates on the same clips, and its interval over drawn sets of clips.

    Args:
        errors (`Sequence[float]`): `(clips,)`, of the one model; over several seeds their mean.
        others (`Sequence[float]`): `(clips,)`, of the other.
        words (`Sequence[int]`): `(clips,)`, reference words.
        draws (`int`, *optional*, defaults to 10000): sets of as many clips, drawn with replacement.
        seed (`int`, *optional*, defaults to 0): of the draws.

    Source: Bisani and Ney, ICASSP 2004.
    """
    difference = np.asarray(errors, np.float64) - np.asarray(others, np.float64)
    spoken = np.asarray(words, np.float64)
    drawn = []
    for counts in np.array_split(_counts(len(spoken), draws, seed), -(-draws // _CHUNK)):
        # A draw of clips without a word has no rate.
        drawn.append(counts @ difference / np.maximum(counts @ spoken, 1.0))
    low, high = np.percentile(np.concatenate(drawn), (2.5, 97.5))
    return Interval(float(difference.sum() / spoken.sum()), float(low), float(high))


@lru_cache(maxsize=4)
def _counts(clips: int, draws: int, seed: int) -> np.ndarray:
    """How often each clip is in each draw, `(draws, clips)`: the same for all pairs of models."""
    generator, shares = np.random.default_rng(seed), np.full(clips, 1.0 / clips)
    sizes = [min(_CHUNK, draws - first) for first in range(0, draws, _CHUNK)]
    return np.concatenate([generator.multinomial(clips, shares, size=size).astype(np.int16) for size in sizes])


def bootstrap(errors: Sequence[float], words: Sequence[int], draws: int = 10_000, seed: int = 0) -> Interval:
    """A word error rate and its interval; as `paired_bootstrap`."""
    return paired_bootstrap(errors, np.zeros(len(words)).tolist(), words, draws, seed)


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation, which one value does not have."""
    held = np.asarray(values, np.float64)
    return float(held.mean()), float(held.std(ddof=1)) if len(held) > 1 else None
