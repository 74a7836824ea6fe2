"""What the lines say of an arm, or of a teacher as it is; what is missing stays missing."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .config import Config, Teacher
from .plan import Done, chosen_rate, encoder_line_key, final_cells, reference_key, tune_cells
from .statistics import Interval, bootstrap, mean_and_deviation, paired_bootstrap


@dataclass(frozen=True)
class Result:
    """The finished lines of one model, a line a seed.

    Args:
        name (`str`): that of the arm, or of a teacher as it is.
        lines (`list[dict]`): those with a result.
        wanted (`int`): seeds that there will be.
        rate (`float`, *optional*): its chosen learning rate.
        failed (`int`, *optional*, defaults to 0): trainings with this rate that left the finite numbers.
    """

    name: str
    lines: list[dict[str, Any]]
    wanted: int
    rate: float | None = None
    failed: int = 0

    def __bool__(self) -> bool:
        return bool(self.lines)

    def has(self, speech_set: str) -> bool:
        """Whether it was measured on a set."""
        return bool(self.lines) and all(speech_set in line["sets"] for line in self.lines)

    def values(self, speech_set: str, figure: str) -> list[float]:
        """A figure of a set, one a seed."""
        return [line["sets"][speech_set][figure] for line in self.lines]

    def mean(self, speech_set: str, figure: str) -> tuple[float, float | None]:
        """Mean and deviation of a figure over the seeds."""
        return mean_and_deviation(self.values(speech_set, figure))

    def mean_of(self, *path: str) -> float | None:
        """Mean over the seeds of a figure that is not of a set; `None` where it was not measured."""
        found: list[Any] = list(self.lines)
        for name in path:
            found = [value.get(name) for value in found if value is not None]
        held = [value for value in found if value is not None]
        return float(np.mean(held)) if held else None

    def errors(self, speech_set: str) -> list[float]:
        """Errors of every clip, the mean over the seeds."""
        return np.mean([line["sets"][speech_set]["errors"] for line in self.lines], axis=0).tolist()

    def words(self, speech_set: str) -> list[int]:
        """Reference words of every clip."""
        return self.lines[0]["sets"][speech_set]["words"]

    def interval(self, speech_set: str) -> Interval:
        """Its WER, with the interval over clips."""
        return bootstrap(self.errors(speech_set), self.words(speech_set))

    def against(self, other: "Result", speech_set: str) -> Interval:
        """How far its WER is above another's, with the interval over clips."""
        return paired_bootstrap(self.errors(speech_set), other.errors(speech_set), self.words(speech_set))


class Results:
    """The results of an experiment.

    Args:
        config (`Config`): its settings.
        done (`dict`): its lines by their key.
    """

    def __init__(self, config: Config, done: Done) -> None:
        self._config, self._done = config, done

    def arm(self, table: str, teacher: Teacher, arm: str) -> Result:
        """An arm with its chosen rate."""
        config = self._config
        cells = final_cells(config, table, teacher, arm, self._done)
        lines = [self._done[key] for cell in cells if (key := cell.key(config)) in self._done]
        usable = [line for line in lines if "error" not in line]
        rate = chosen_rate(config, table, teacher, arm, self._done)
        return Result(arm, usable, len(config.seeds), rate, len(lines) - len(usable))

    def reference(self, table: str, teacher: Teacher) -> Result:
        """The teacher as it is."""
        line = self._done.get(reference_key(self._config, teacher, self._config.tables[table]))
        return Result(f"{teacher.name} as it is", [line] if line is not None else [], 1)

    def tried(self, table: str, teacher: Teacher, arm: str) -> dict[float, dict[str, Any] | None]:
        """The lines of the rates that an arm tried."""
        cells = tune_cells(self._config, table, teacher, arm)
        return {cell.learning_rate: self._done.get(cell.key(self._config)) for cell in cells}

    def encoder_curve(self, teacher: Teacher) -> list[dict[str, float]] | None:
        """How the distance of a teacher's encoder at true length to that at 30 s fell; `None` before."""
        line = self._done.get(encoder_line_key(self._config, teacher))
        return line["curve"] if line is not None else None

    def hardware(self) -> list[str]:
        """The machines and versions of the lines, each once."""
        told = {
            f"{line['hardware']['processor']} ({line['hardware']['cores']} cores, {line['hardware']['threads']} "
            f"threads), {line['hardware']['device']}, torch {line['versions']['torch']}, "
            f"transformers {line['versions']['transformers']}"
            for line in self._done.values()
        }
        return sorted(told)
