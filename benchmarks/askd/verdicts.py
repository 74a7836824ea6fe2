"""Sentences that the figures decide."""

from .config import Config
from .results import Result


def verdicts(config: Config, rows: list[Result]) -> list[str]:
    """What holds of a table and what does not, on the main set.

    Args:
        rows (`list[Result]`): the teacher as it is, then the arms.
    """
    found = {row.name: row for row in rows if row.has(config.main_set)}
    sentences = [_of_all(config, rows, found, rows[0], "the teacher as it is")]
    if config.baseline in found:
        sentences.append(_of_all(config, rows, found, found[config.baseline], config.baseline))
    best = best_of_ours(config, rows)
    if best is not None and len(config.ours) > 1:
        dev = 100 * best.mean("dev", "wer")[0]
        sentences.append(f"Of {_listed(config.ours)}, {best.name} has the lowest WER on dev, {dev:.2f} %.")
    if best is not None:
        sentences += [
            compared(best, found[name], config.main_set)
            for name in config.rivals
            if name in found and name != best.name
        ]
    incomplete = [row.name for row in rows if len(row.lines) < row.wanted]
    if incomplete:
        sentences.append(f"Not complete: {_listed(incomplete)}.")
    return sentences


def best_of_ours(config: Config, rows: list[Result]) -> Result | None:
    """The one of the config's `ours` that is best on dev, once all of them that the table has are complete."""
    ours = [row for row in rows if row.name in config.ours]
    if not ours or any(len(row.lines) < row.wanted for row in ours):
        return None
    return min(ours, key=lambda row: row.mean("dev", "wer")[0])


def compared(row: Result, other: Result, speech_set: str) -> str:
    """Whether two differ by more than the interval."""
    interval = row.against(other, speech_set)
    low, high = sorted((abs(100 * interval.low), abs(100 * interval.high)))
    if interval.is_clear:
        word = "lower" if interval.value < 0 else "higher"
        return (
            f"The WER of {row.name} is {abs(100 * interval.value):.2f} points {word} than that of {other.name} on "
            f"{speech_set}, 95 % interval {low:.2f} to {high:.2f}."
        )
    return (
        f"{row.name} and {other.name} do not differ on {speech_set} by more than the 95 % interval: "
        f"{100 * interval.value:+.2f} points, {100 * interval.low:+.2f} to {100 * interval.high:+.2f}."
    )


def _of_all(config: Config, rows: list[Result], found: dict[str, Result], other: Result, name: str) -> str:
    """Which arms are better or worse than another row by more than the interval."""
    if other.name not in found:
        return f"Nothing can be said against {name}, which is missing."
    arms = [row for row in rows[1:] if row.name in found and row.name != other.name]
    if not arms:
        return f"No arm has been measured beside {name} yet."
    intervals = {row.name: row.against(other, config.main_set) for row in arms}
    better = [arm for arm, one in intervals.items() if one.is_clear and one.value < 0]
    worse = [arm for arm, one in intervals.items() if one.is_clear and one.value > 0]
    beyond = "by more than the 95 % interval"
    if better:
        text = f"Better than {name} on {config.main_set} {beyond}: {_listed(better)}."
    else:
        text = f"No arm is better than {name} on {config.main_set} {beyond}."
    return text + (f" Worse: {_listed(worse)}." if worse else "")


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
