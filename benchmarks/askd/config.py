"""The settings of the experiment, read from JSON, and the keys by which finished work is known again."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from fastwhisper.data.row_store import content_key
from fastwhisper.errors import InputError

LABELS = ("references", "pseudo")
CASINGS = ("as_is", "sentence")
ALL = "all"

Section = TypeVar("Section")


@dataclass(frozen=True)
class Teacher:
    """A Whisper: its folder below `--models` or its name on the Hub, and its language if it has several."""

    name: str
    language: str | None = None


@dataclass(frozen=True)
class Source:
    """Rows of speech: a folder below `--data` or a name on the Hub.

    `language` is that of all rows; without one the rows have a column. A set that is `multilingual` is left out for
    teachers that know English alone. `casing` is `as_is`, or `sentence` for references in capitals: as a Whisper
    would write them, with a full stop.
    """

    data: str
    config: str | None = None
    split: str | None = None
    limit: int | None = None
    language: str | None = "en"
    multilingual: bool = False
    casing: str = "as_is"
    text_column: str = "text"


@dataclass(frozen=True)
class Dev:
    """What is split off the training rows for every choice: whole speakers, of each group its share."""

    share: float = 0.1
    seed: int = 0
    limit: int | None = None
    speaker: str = "speaker"
    group: str | None = "group"


@dataclass(frozen=True)
class Augmentation:
    """What is made of the training rows: a share of them is joined with others of their speaker, and of each row that
    comes of it there are changed copies, with bounds between which is drawn."""

    joined_probability: float = 0.0
    copies: int = 0
    speeds: list[float] = field(default_factory=lambda: [0.9, 1.1])
    noise_decibels_below: list[float] = field(default_factory=lambda: [10.0, 40.0])
    seed: int = 0


@dataclass(frozen=True)
class Initial:
    """How the encoder learns to hear clips without padding, before all arms: see `initial_student`."""

    decoder_layers: int = 2
    rows: int | None = None
    epochs: int = 1
    learning_rate: float = 3e-5
    batch_size: int = 16
    seed: int = 0
    margin: float = 0.5


@dataclass(frozen=True)
class Training:
    """What all arms share. SpecAugment takes the cache of the encoder away, and dropout is the decoder's.

    Rates may be tried with fewer epochs, `tune_epochs`.
    """

    epochs: float = 3
    tune_epochs: float | None = None
    batch_size: int = 16
    warmup: float = 0.1
    weight_decay: float = 0.01
    dropout: float = 0.0
    mask_time_probability: float = 0.0
    mask_feature_probability: float = 0.0
    log_lines: int = 30
    bf16: bool = False


@dataclass(frozen=True)
class Arm:
    """A way to train, by settings of `ASKDTrainingArguments` alone.

    `decoder_layers` are the initial student's unless given (`all`: the teacher's), `encoder_layers` all of them, and
    `labels` those of the table.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    decoder_layers: int | str | None = None
    encoder_layers: int | None = None
    lora_rank: int = 0
    labels: str | None = None


@dataclass(frozen=True)
class BlindSpot:
    """A teacher that mistakes a share of the words of the training rows for others, always: see `blind_spot`."""

    share: float = 0.1
    seed: int = 0
    least_count: int = 3
    rows: int | None = None
    epochs: float = 2
    learning_rate: float = 3e-5
    batch_size: int = 16


@dataclass(frozen=True)
class Table:
    """What the arms learn from. Without `arms` or `teachers`, all of them."""

    labels: str = "references"
    blind_spot: BlindSpot | None = None
    arms: list[str] | None = None
    teachers: list[str] | None = None


@dataclass(frozen=True)
class Measuring:
    """How models are measured: greedily, each text of at most `most_tokens`, by default those of the decoder."""

    batch_size: int = 16
    most_tokens: int | None = None
    bins: int = 15
    silence_seconds: list[float] = field(default_factory=lambda: [1.0, 2.0, 5.0, 10.0, 30.0])
    noise: Source | None = None
    noise_windows: int = 2
    speed_clips: int = 20


@dataclass(frozen=True)
class Config:
    """The whole experiment.

    Every arm tries `learning_rates` with `tune_seed`; `seeds` are others. The report compares all arms with the
    `baseline` on the `main_set`, and the one of `ours` that is best on dev with the `rivals`;
    arms of one shape are equally fast, and of those only the `plotted` are in the plot of speed.
    """

    teachers: list[Teacher]
    train: Source
    sets: dict[str, Source]
    learning_rates: list[float]
    arms: dict[str, Arm]
    tables: dict[str, Table]
    seeds: list[int]
    tune_seed: int = 0
    baseline: str = "CE"
    ours: list[str] = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)
    plotted: list[str] = field(default_factory=list)
    main_set: str = "test"
    wer_filter: float | None = 0.1
    keep_weights: list[str] = field(default_factory=list)
    dev: Dev = field(default_factory=Dev)
    augmentation: Augmentation = field(default_factory=Augmentation)
    initial: Initial = field(default_factory=Initial)
    training: Training = field(default_factory=Training)
    measuring: Measuring = field(default_factory=Measuring)

    def __post_init__(self) -> None:
        for table_name, table in self.tables.items():
            for kind, named, known in (
                ("arm", table.arms or [], list(self.arms)),
                ("teacher", table.teachers or [], [teacher.name for teacher in self.teachers]),
            ):
                for name in named:
                    if name not in known:
                        there = ", ".join(known)
                        raise InputError(f"table {table_name!r} names the {kind} {name!r}; there are {there}")
        for name, labels in [(name, each.labels) for name, each in (*self.arms.items(), *self.tables.items())]:
            if labels is not None and labels not in LABELS:
                raise InputError(f"{name}: labels={labels!r} is not one of {', '.join(LABELS)}")
        for source in (self.train, *self.sets.values()):
            if source.casing not in CASINGS:
                raise InputError(f"{source.data}: casing={source.casing!r} is not one of {', '.join(CASINGS)}")
        if self.tune_seed in self.seeds:
            raise InputError(f"tune_seed={self.tune_seed} is one of the seeds: a rate must be chosen with another")
        for setting in ("keep_weights", "ours", "rivals", "plotted"):
            for name in getattr(self, setting):
                if name not in self.arms:
                    raise InputError(f"{setting} names the arm {name!r}; there are {', '.join(self.arms)}")
        if self.baseline not in self.arms:
            raise InputError(f"the baseline {self.baseline!r} is not one of the arms, {', '.join(self.arms)}")
        if self.main_set not in self.sets:
            raise InputError(f"the main_set {self.main_set!r} is not one of the sets, {', '.join(self.sets)}")


def load_config(path: Path) -> Config:
    """Read a config.

    Raises:
        InputError: for a file that cannot be read, a name that there is not, and one that is missing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    for name, section in (
        ("train", Source),
        ("dev", Dev),
        ("augmentation", Augmentation),
        ("initial", Initial),
        ("training", Training),
        ("measuring", Measuring),
    ):
        if name in found:
            found[name] = _section(section, found[name], name)
    for name, section in (("sets", Source), ("arms", Arm), ("tables", Table)):
        found[name] = {key: _section(section, value, f"{name}, {key}") for key, value in found.get(name, {}).items()}
    found["teachers"] = [_section(Teacher, value, "teachers") for value in found.get("teachers", [])]
    return _section(Config, found, str(path))


def _section(section: type[Section], values: dict[str, Any], where: str) -> Section:
    names = [entry.name for entry in fields(section)]  # type: ignore[arg-type]
    for name in values:
        if name not in names:
            raise InputError(f"{where} has {name!r}; it can have {', '.join(names)}")
    values = dict(values)
    if values.get("blind_spot") is not None:
        values["blind_spot"] = _section(BlindSpot, values["blind_spot"], f"{where}, blind_spot")
    if section is Measuring and values.get("noise") is not None:
        values["noise"] = _section(Source, values["noise"], f"{where}, noise")
    try:
        return section(**values)
    except TypeError as error:
        raise InputError(f"{where}: {error}") from error


def rows_key(config: Config) -> str:
    """A key of the training and the dev rows."""
    return settings_key(config.train, config.dev, config.augmentation)


def settings_key(*settings: Any) -> str:
    """A key of settings: dataclasses, or what JSON can hold."""
    return content_key(*(json.dumps(plain(part), sort_keys=True) for part in settings))


def plain(settings: Any) -> Any:
    """Settings as JSON holds them."""
    return asdict(settings) if hasattr(settings, "__dataclass_fields__") else settings
