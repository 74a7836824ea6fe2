"""The report: Markdown tables and plots from the lines alone. Its sentences follow from the figures, too."""

import re
from pathlib import Path
from typing import Any

from fastwhisper.files import write_whole

from .config import Arm, Config, Teacher
from .plan import Done, arms_of, groups, sets_of
from .plots import plot_error_rates, plot_losses, plot_speed
from .results import Result, Results
from .statistics import Interval
from .verdicts import verdicts

MISSING = "missing"
PREFACE = """# Does ASKD work? Every way to train the same student, on real speech

Written by `python -m benchmarks.askd --config {config} --report`, from the lines of finished trainings alone: every
figure, and every sentence that depends on one. ASKD's idea is that of arXiv 2601.19919, whose formulas and settings
were not available to us: what is tested here is this project's version of it.
"""
HOW = """## How it is measured

- **Student.** The teacher's encoder is taught once, without labels, to hear clips at their own length, then frozen; of
  the decoder {layers} layers are kept. All arms begin with the same weights and see the same rows in the same order.
  The mean squared distance of the encoder's states over the speech to those at 30 s went from and to: {distances}.
- **Rates.** Every arm tries the learning rates {rates} with one seed on dev speakers, whom no training row is of, and
  keeps the best; then it is trained with {seeds} other seeds. Dev decides, the other sets are only reported.
- **Word error rate (WER).** Greedy, float32, texts normalised as Whisper's; mean and standard deviation over seeds.
- **95 % interval.** Paired bootstrap over clips, 10,000 draws, of the errors averaged over the seeds.
- **Calibration (ECE).** {bins} bins of equal width; confidence of the most probable token against whether it is the
  reference's, for every text token of the references and their end, given the reference before it.
- **Invented words.** Words a minute on digital silence and faint white noise, and on recordings of noise.
- **Real-time factor (RTF).** Seconds of work a second of speech, from samples to text, batch 1, on {clips} dev clips.
- **Regularisation**, the same for every arm: {regularisation}.
"""


def write_report(config: Config, done: Done, path: Path, config_name: str = "benchmarks/askd/small.json") -> None:
    """Write the report and its plots beside it, named after it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    results = Results(config, done)
    parts = [PREFACE.format(config=config_name), _how(config, results), _arms(config)]
    for table, teacher in groups(config):
        parts += _section(config, results, table, teacher, path)
    parts += _speed(config, results, path)
    hardware = "".join(f"- {line}\n" for line in results.hardware()) or "- nothing has run yet\n"
    parts.append(f"## Hardware and versions\n\n{hardware}")
    write_whole(path, "\n".join(parts))


def percent(value: float) -> str:
    """A fraction, as in all tables."""
    return f"{100 * value:.2f} %"


def points(interval: Interval) -> str:
    """A difference of two WERs with its interval, in points, as in all tables."""
    text = f"{100 * interval.value:+.2f} ({100 * interval.low:+.2f} to {100 * interval.high:+.2f})"
    return f"**{text}**" if interval.is_clear else text


def rows_of(config: Config, results: Results, table: str, teacher: Teacher) -> list[Result]:
    """The teacher as it is, then the arms of a table."""
    return [
        results.reference(table, teacher),
        *(results.arm(table, teacher, arm) for arm in arms_of(config, table)),
    ]


def _how(config: Config, results: Results) -> str:
    training = config.training
    on = {
        "decoder dropout": training.dropout,
        "SpecAugment in time": training.mask_time_probability,
        "SpecAugment in frequency": training.mask_feature_probability,
        "weight decay": training.weight_decay,
    }
    copies = config.augmentation
    speeds, noise = ("{:g} to {:g}".format(*bounds) for bounds in (copies.speeds, copies.noise_decibels_below))
    augmented = [f"{copies.copies} copies of every row, speed {speeds}, white noise {noise} dB below"]
    parts = [f"{name} {value:g}" for name, value in on.items() if value] + augmented[: copies.copies]
    distances = [
        f"{teacher.name} {curve[0]['squared_distance']:.4f} to {curve[-1]['squared_distance']:.4f}"
        for teacher in config.teachers
        if (curve := results.encoder_curve(teacher)) is not None
    ]
    return HOW.format(
        distances=", ".join(distances) or MISSING,
        layers=config.initial.decoder_layers,
        rates=", ".join(f"{rate:g}" for rate in config.learning_rates),
        seeds=len(config.seeds),
        bins=config.measuring.bins,
        clips=config.measuring.speed_clips,
        regularisation=", ".join(parts) or "none",
    )


def _arms(config: Config) -> str:
    rows = [[name, f"`{_settings(arm)}`"] for name, arm in config.arms.items()]
    return f"## The arms\n\n{_table(['arm', 'settings that differ from the defaults'], rows)}"


def _settings(arm: Arm) -> str:
    beside = {
        "decoder_layers": arm.decoder_layers,
        "encoder_layers": arm.encoder_layers,
        "lora_rank": arm.lora_rank or None,
        "labels": arm.labels,
    }
    settings = {**arm.settings, **{name: value for name, value in beside.items() if value is not None}}
    return ", ".join(f"{name}={value}" for name, value in settings.items()) or "none"


def _section(config: Config, results: Results, table: str, teacher: Teacher, path: Path) -> list[str]:
    rows = rows_of(config, results, table, teacher)
    title = f"## {table}: {teacher.name}"
    if not any(rows):
        return [f"{title}\n\nNothing of it has run yet.\n"]
    parts = [title + "\n", "\n".join(f"- {sentence}" for sentence in verdicts(config, rows)) + "\n"]
    parts += [_error_rates(config, teacher, rows), _differences(config, rows), _beside(config, rows)]
    if config.tables[table].blind_spot is not None:
        parts.append(_planted(config, rows))
    parts.append(_tried(config, results, table, teacher))
    name = f"{path.stem}-{_slug(table)}-{_slug(teacher.name)}"
    if plot_error_rates(rows, config.main_set, path.with_name(f"{name}-wer.png")):
        parts.append(f"![Word error rate by arm]({name}-wer.png)\n")
    if plot_losses(rows, path.with_name(f"{name}-loss.png")):
        parts.append(f"![Loss parts and weights by arm, first seed]({name}-loss.png)\n")
    return parts


def _error_rates(config: Config, teacher: Teacher, rows: list[Result]) -> str:
    sets = ["dev", *sets_of(config, teacher)]
    body = []
    for row in rows:
        cells = [_spread(*row.mean(name, "wer")) if row.has(name) else MISSING for name in sets]
        rate = f"{row.rate:g}" if row.rate is not None else ""
        body.append([row.name, rate, _seeds(row), *cells])
    return "### WER\n\n" + _table(["", "learning rate", "seeds", *sets], body)


def _differences(config: Config, rows: list[Result]) -> str:
    name = config.main_set
    others = [rows[0], next((row for row in rows if row.name == config.baseline), rows[0])]
    body = [[row.name, *(_difference(row, other, name) for other in others)] for row in rows[1:]]
    headings = ["", *(f"against {other.name}" for other in others)]
    text = f"### Difference on {name}\n\nIn points of WER, with the 95 % interval; bold where 0 is outside.\n\n"
    return text + _table(headings, body)


def _beside(config: Config, rows: list[Result]) -> str:
    name = config.main_set
    body = []
    for row in rows:
        kinds = ("substitutions", "deletions", "insertions")
        counts = [row.mean(name, kind)[0] if row.has(name) else None for kind in kinds]
        figures: list[tuple[float | None, str]] = [
            *((value, ",.0f") for value in counts),
            (row.mean(name, "ece")[0] if row.has(name) else None, ".4f"),
            (row.mean_of("invented_words_a_minute", "silence"), ".1f"),
            (row.mean_of("invented_words_a_minute", "noise"), ".1f"),
            (row.mean_of("seconds_a_row"), ".4f"),
            (row.mean_of("speed", "real_time_factor"), ".4f"),
            (row.mean_of("parameters"), ",.0f"),
        ]
        shown = [format(value, form) if value is not None else MISSING for value, form in figures]
        if row is rows[0]:
            shown[6] = ""  # it is not trained
        body.append([row.name, *shown])
    headings = ["substitutions", "deletions", "insertions", "ECE", "words a minute on silence", "on noise"]
    headings += ["seconds a row of training", "RTF", "parameters"]
    return f"### Beside the WER, on {name}\n\n" + _table(["", *headings], body)


def _planted(config: Config, rows: list[Result]) -> str:
    name, body = config.main_set, []
    for row in rows:
        found = [MISSING, MISSING, MISSING]
        if row.has(name):
            counts = row.values(name, "planted")
            words, errors, copied = (sum(one[key] for one in counts) for key in ("words", "errors", "as_the_teacher"))
            found = [str(counts[0]["words"]), *(percent(one / words) if words else "none" for one in (errors, copied))]
        body.append([row.name, *found])
    text = "### The planted words\n\nWords that the teacher was made to take for others, wherever they stand in "
    text += f"{name}: how many there are, how many are wrong, and how many are wrong as the teacher's are.\n\n"
    return text + _table(["", "words", "wrong", "as the teacher"], body)


def _tried(config: Config, results: Results, table: str, teacher: Teacher) -> str:
    if len(config.learning_rates) < 2:
        return ""
    body = []
    for arm in arms_of(config, table):
        tried = results.tried(table, teacher, arm)
        body.append([arm, *(_dev(tried[rate]) for rate in config.learning_rates)])
    return "### WER on dev by learning rate\n\n" + _table(["", *(f"{rate:g}" for rate in config.learning_rates)], body)


def _dev(line: dict[str, Any] | None) -> str:
    if line is None:
        return MISSING
    return "failed" if "error" in line else percent(line["sets"]["dev"]["wer"])


def _speed(config: Config, results: Results, path: Path) -> list[str]:
    rows = {}
    for table, teacher in groups(config):
        if config.tables[table].blind_spot is None:
            for row in rows_of(config, results, table, teacher):
                is_arm = row.name in config.arms
                if row.has(config.main_set) and not (is_arm and config.plotted and row.name not in config.plotted):
                    rows[f"{row.name}, {teacher.name}, {table}" if is_arm else row.name] = row
    name = f"{path.stem}-speed.png"
    if not plot_speed(rows, config.main_set, path.with_name(name)):
        return []
    return [f"## WER against speed\n\n![Word error rate against real-time factor]({name})\n"]


def _spread(mean: float, deviation: float | None) -> str:
    return percent(mean) if deviation is None else f"{100 * mean:.2f} ± {100 * deviation:.2f} %"


def _seeds(row: Result) -> str:
    failed = f", {row.failed} failed" if row.failed else ""
    return f"{len(row.lines)} of {row.wanted}{failed}"


def _difference(row: Result, other: Result, speech_set: str) -> str:
    if row is other:
        return ""
    return points(row.against(other, speech_set)) if row.has(speech_set) and other.has(speech_set) else MISSING


def _table(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-")
