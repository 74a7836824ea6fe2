"""Leave out unusable rows, and say how many, which and why."""

import hashlib
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import datasets
import soundfile
from datasets import Dataset, Features, IterableDataset, Value
from filelock import FileLock
from transformers import WhisperProcessor

from .. import __version__
from ..errors import InputError
from .audio_paths import audio_paths
from .folders import NAMED
from .label_encoding import TIMESTAMPED_COLUMNS
from .row_checks import Drop, RowCheck

logger = logging.getLogger(__name__)

ON_BAD_AUDIO = ("skip", "stop")
_CHECKED_COLUMNS = ("audio", "text", "language", "labels", "input_features", *TIMESTAMPED_COLUMNS)
_VERDICT = Features({"reason": Value("string"), "detail": Value("string"), "seconds": Value("float64")})

AnyDataset = TypeVar("AnyDataset", Dataset, IterableDataset)


@dataclass(frozen=True)
class UsableRows(Generic[AnyDataset]):
    """What is left of a dataset.

    Args:
        dataset (`Dataset` or `IterableDataset`): the usable rows.
        dropped (`Counter[str]`): the other rows by reason; those of a stream are counted as it is read.
        seconds (`list[float | None]`, *optional*): length of the audio of each usable row, `None` for a row whose
            features are prepared; of a stream there is no list.
    """

    dataset: AnyDataset
    dropped: Counter[str]
    seconds: list[float | None] | None = None


def drop_unusable_rows(
    dataset: AnyDataset,
    processor: WhisperProcessor,
    max_target_positions: int = 448,
    *,
    language: str | None = None,
    task: str | None = None,
    on_bad_audio: str = "skip",
    num_proc: int | None = None,
) -> AnyDataset:
    r"""Leave out rows that cannot be trained on: without text, with more labels than the decoder takes, in a
    language that is not understood, or with audio that is longer than the window, empty or undecodable.

    Args:
        dataset (`Dataset` or `IterableDataset`):
            Rows with `audio` and `text`.
        processor (`WhisperProcessor`):
            Its window and its tokenizer.
        max_target_positions (`int`, *optional*, defaults to 448):
            Most label tokens that the decoder takes.
        language (`str`, *optional*):
            Passed to [`LabelEncoder`].
        task (`str`, *optional*):
            Passed to [`LabelEncoder`].
        on_bad_audio (`str`, *optional*, defaults to `"skip"`):
            As in [`usable_rows`].
        num_proc (`int`, *optional*):
            As in [`usable_rows`].

    Raises:
        InputError: as [`usable_rows`].
    """
    check = RowCheck.for_training(processor, max_target_positions, language, task)
    return usable_rows(dataset, check, on_bad_audio, num_proc).dataset


def usable_rows(
    dataset: AnyDataset, check: RowCheck, on_bad_audio: str = "skip", num_proc: int | None = None
) -> UsableRows[AnyDataset]:
    r"""The rows in which a check finds nothing wrong. A warning counts the others by reason, and names those whose
    audio or labels are bad.

    The rows of a `Dataset` are checked at once, every clip decoded to its end. The result is kept in the cache of
    `datasets` until the rows, the files or the check change; of several processes on a machine the first one
    checks, and the others read the result. A stream is checked as it is read, and its counts are logged whenever they
    double; a row that returns in a later epoch is not counted again.

    Args:
        dataset (`Dataset` or `IterableDataset`): rows with `audio`, and whatever else the check looks at.
        check (`RowCheck`): what a row must have.
        on_bad_audio (`str`, *optional*, defaults to `"skip"`): `"stop"` makes audio that is empty or cannot be decoded
            an error.
        num_proc (`int`, *optional*): processes that check a `Dataset`; by default this one does.

    Raises:
        InputError: if no rows are left, and with `"stop"` for bad audio; the message names the row and the audio.
    """
    check_on_bad_audio(on_bad_audio)
    if isinstance(dataset, IterableDataset):
        stream_filter = StreamFilter(check, on_bad_audio)
        return UsableRows(dataset.filter(stream_filter, with_indices=True), stream_filter.dropped)
    if len(dataset) == 0:
        raise InputError("the dataset has no rows")
    drops, seconds = _checked(dataset, check, num_proc)
    bad = [index for index, drop in drops.items() if drop.is_bad_audio]
    if bad and on_bad_audio == "stop":
        more = f", and {len(bad) - 1} more rows have bad audio" if len(bad) > 1 else ""
        raise InputError(f"row {bad[0]}: {drops[bad[0]].detail}{more}")
    dropped = Counter(drop.reason for drop in drops.values())
    if len(drops) == len(dataset):
        raise no_rows_left(drops)
    log_drops(drops, len(dataset))
    kept = [index for index in range(len(dataset)) if index not in drops]
    usable = dataset.select(kept) if drops else dataset
    return UsableRows(usable, dropped, [seconds[index] for index in kept])


def check_on_bad_audio(choice: str) -> None:
    """Check the setting for bad audio.

    Raises:
        InputError: for anything but `skip` and `stop`.
    """
    if choice not in ON_BAD_AUDIO:
        raise InputError(f"on_bad_audio={choice!r}: it must be {' or '.join(ON_BAD_AUDIO)}")


def log_drops(drops: Mapping[int, Drop], total: int) -> None:
    """Warn about rows that are left out: the first few with details by name, all by number."""
    told = [f"row {index} dropped: {drop.detail}" for index, drop in drops.items() if drop.detail]
    for line in told[:NAMED]:
        logger.warning(line)
    if len(told) > NAMED:
        logger.warning("... and %d more such rows", len(told) - NAMED)
    if drops:
        logger.warning(describe_drops(Counter(drop.reason for drop in drops.values()), total))


def no_rows_left(drops: Mapping[int, Drop]) -> InputError:
    """The error for a dataset whose rows were all dropped."""
    counts = describe_drops(Counter(drop.reason for drop in drops.values()), len(drops))
    first = next((f"; row {index}: {drop.detail}" for index, drop in drops.items() if drop.detail), "")
    return InputError(f"no rows left: {counts}{first}")


def describe_drops(dropped: Counter[str], total: int) -> str:
    """For example `3 of 10 rows dropped: 2 empty audio, 1 without text`."""
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
    return f"{dropped.total()} of {total} rows dropped: {reasons}"


class StreamFilter:
    """The predicate of a streaming filter: `seen` and `dropped` count the rows of this process.

    Args:
        check (`RowCheck`): what a row must have.
        on_bad_audio (`str`, *optional*, defaults to `"skip"`): as in [`usable_rows`].
    """

    def __init__(self, check: RowCheck, on_bad_audio: str = "skip") -> None:
        self.check = check
        self.on_bad_audio = on_bad_audio
        self.seen = 0
        self.dropped: Counter[str] = Counter()
        self._told = 0

    def __call__(self, row: Mapping[str, Any], index: int) -> bool:
        drop = self.check(row)
        if drop is not None and drop.is_bad_audio and self.on_bad_audio == "stop":
            raise InputError(f"row {index} of the stream: {drop.detail}")
        # Each pass starts at 0 again.
        if index >= self.seen:
            self.seen = index + 1
            if drop is not None:
                self._count(drop, index)
        return drop is None

    def _count(self, drop: Drop, index: int) -> None:
        self.dropped[drop.reason] += 1
        if drop.detail and self._told < NAMED:
            self._told += 1
            logger.warning("row %d of the stream dropped: %s", index, drop.detail)
        total = self.dropped.total()
        # Nothing says when a stream ends: doubling keeps the log short and never more than half behind.
        if total & (total - 1) == 0:
            logger.warning("so far, %s", describe_drops(self.dropped, self.seen))


def _checked(dataset: Dataset, check: RowCheck, num_proc: int | None) -> tuple[dict[int, Drop], list[float | None]]:
    """The rows to leave out, by index, and the seconds of every row."""
    rows = dataset
    if dataset.format["type"] != "custom":  # custom: a function of the user makes the rows from all columns
        columns = [column for column in _CHECKED_COLUMNS if column in dataset.column_names]
        rows = dataset.select_columns(columns).with_format(None)
    cache = _cache_file(dataset, check)
    lock = nullcontext() if cache is None else FileLock(f"{cache}.lock")
    with lock, _bar_on_terminals_alone():
        verdicts = rows.map(
            _verdict,
            fn_kwargs={"check": check},
            remove_columns=rows.column_names,
            features=_VERDICT,
            keep_in_memory=cache is None,
            cache_file_name=None if cache is None else str(cache),
            new_fingerprint=None if cache is None else cache.stem,
            num_proc=num_proc,
            desc="checking rows",
        ).with_format(None)
    found = zip(verdicts["reason"][:], verdicts["detail"][:], strict=True)
    drops = {index: Drop(reason, detail) for index, (reason, detail) in enumerate(found) if reason is not None}
    return drops, verdicts["seconds"][:]


def _verdict(row: Mapping[str, Any], check: RowCheck) -> dict[str, str | float | None]:
    verdict = check.verdict(row)
    told = {"reason": None, "detail": None} if verdict.drop is None else asdict(verdict.drop)
    return {**told, "seconds": verdict.seconds}


def _cache_file(dataset: Dataset, check: RowCheck) -> Path | None:
    """Where verdicts on these rows, files and checks are kept; `None` if they cannot be."""
    if not datasets.is_caching_enabled():
        return None
    digest = hashlib.blake2b(digest_size=16)
    parts = (__version__, *_VERDICT, soundfile.__libsndfile_version__, dataset._fingerprint, check.fingerprint())
    for part in parts:
        digest.update(f"{part}\n".encode())
    for path in audio_paths(dataset):
        if "://" in path:
            return None  # there is no telling whether it changes
        digest.update(f"{path}\n{_state(path)}\n".encode(errors="surrogateescape"))
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "fastwhisper"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder / f"{digest.hexdigest()}.arrow" if os.access(folder, os.W_OK) else None


def _state(path: str) -> str:
    """Changes if a file is written, repaired, replaced or made readable."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):
        return "missing"
    return f"{state.st_size} {state.st_mtime_ns} {state.st_ctime_ns}"


@contextmanager
def _bar_on_terminals_alone() -> Iterator[None]:
    shown = not datasets.are_progress_bars_disabled()
    if shown and not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
