"""Which trainings the experiment consists of, and in which order."""

from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from .config import Arm, Config, Table, Teacher, plain, rows_key, settings_key

TUNE, FINAL = "tune", "final"

Done: TypeAlias = dict[str, dict[str, Any]]  # lines by their key


@dataclass(frozen=True)
class Cell:
    """One training: an arm of a table, with a learning rate and a seed, measured on dev alone or on all sets."""

    stage: str
    table: str
    teacher: Teacher
    arm: str
    learning_rate: float
    seed: int

    def spec(self, config: Config) -> Arm:
        """The arm, with its labels."""
        arm = config.arms[self.arm]
        return replace(arm, labels=arm.labels or config.tables[self.table].labels)

    def epochs(self, config: Config) -> float:
        """How long it is trained; rates may be tried for a shorter time."""
        training = config.training
        shorter = self.stage == TUNE and training.tune_epochs is not None
        return training.tune_epochs if shorter else training.epochs  # type: ignore[return-value]

    def settings(self, config: Config) -> dict[str, Any]:
        """All that its result depends on; neither names nor what there is beside it in the experiment."""
        arm, table, training = self.spec(config), config.tables[self.table], plain(config.training)
        del training["tune_epochs"], training["log_lines"]
        return {
            "teacher": plain(self.teacher),
            "blind_spot": plain(table.blind_spot),
            "arm": plain(arm),
            "wer_filter": config.wer_filter if arm.labels == "pseudo" else None,
            "learning_rate": self.learning_rate,
            "seed": self.seed,
            "training": {**training, "epochs": self.epochs(config)},
            **{name: plain(getattr(config, name)) for name in ("train", "dev", "augmentation", "initial")},
            **_measured(config, self.teacher, self.stage),
        }

    def key(self, config: Config) -> str:
        """By which its line is found."""
        return settings_key("cell", self.settings(config))


def _measured(config: Config, teacher: Teacher, stage: str) -> dict[str, Any]:
    sets = {name: plain(source) for name, source in sets_of(config, teacher).items()} if stage == FINAL else {}
    measuring = plain(config.measuring)
    if stage == TUNE:
        measuring = {name: measuring[name] for name in ("batch_size", "most_tokens", "bins")}
    return {"sets": sets, "measuring": measuring}


def sets_of(config: Config, teacher: Teacher) -> dict[str, Any]:
    """The sets that a teacher's language allows."""
    return {name: one for name, one in config.sets.items() if teacher.language or not one.multilingual}


def reference_key(config: Config, teacher: Teacher, table: Table) -> str:
    """The key of the line of a teacher as it is."""
    measured = _measured(config, teacher, FINAL)
    rows = rows_key(config) if table.blind_spot is not None else settings_key(config.train, config.dev)
    return settings_key("teacher", teacher, table.blind_spot, rows, measured)


def encoder_line_key(config: Config, teacher: Teacher) -> str:
    """The key of the line of a teacher's encoder, taught true length."""
    return settings_key("encoder", teacher, config.initial, rows_key(config))


def teachers_of(config: Config, table: str) -> list[Teacher]:
    """The teachers of a table."""
    named = config.tables[table].teachers
    return [teacher for teacher in config.teachers if named is None or teacher.name in named]


def arms_of(config: Config, table: str) -> list[str]:
    """The arms of a table."""
    named = config.tables[table].arms
    return [arm for arm in config.arms if named is None or arm in named]


def tune_cells(config: Config, table: str, teacher: Teacher, arm: str) -> list[Cell]:
    """The trainings that an arm chooses its learning rate from; none where there is nothing to choose."""
    rates = config.learning_rates if len(config.learning_rates) > 1 else []
    return [Cell(TUNE, table, teacher, arm, rate, config.tune_seed) for rate in rates]


def chosen_rate(config: Config, table: str, teacher: Teacher, arm: str, done: Done) -> float | None:
    """The learning rate with the lowest WER on dev, the lower one of equals.

    `None` before all are tried, and where every one of them failed.
    """
    if len(config.learning_rates) == 1:
        return config.learning_rates[0]
    tried = [done.get(cell.key(config)) for cell in tune_cells(config, table, teacher, arm)]
    if None in tried:
        return None
    rates = [(line["sets"]["dev"]["wer"], line["learning_rate"]) for line in tried if line and "error" not in line]
    return min(rates)[1] if rates else None


def final_cells(config: Config, table: str, teacher: Teacher, arm: str, done: Done) -> list[Cell]:
    """The trainings with the chosen rate, one a seed; none before it is chosen."""
    rate = chosen_rate(config, table, teacher, arm, done)
    if rate is None:
        return []
    return [Cell(FINAL, table, teacher, arm, rate, seed) for seed in config.seeds]


def groups(config: Config) -> list[tuple[str, Teacher]]:
    """Tables and teachers in the order in which they are done: a teacher's first table before another's second."""
    return [(table, teacher) for table in config.tables for teacher in teachers_of(config, table)]
