"""Short clips of one speaker joined to rows of up to a window, each with its text and its segment times."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from ..modeling.waveforms import SAMPLING_RATE
from .audio import describe_audio, load_audio
from .filtering import UsableRows
from .label_encoding import LabelEncoder, plain_text, prepared_labels, spaced, timestamped_text
from .timestamps import RESOLUTION, at_timestamps, timestamp_step, timestamp_token

_STEP_SAMPLES = round(RESOLUTION * SAMPLING_RATE)


class JoinedRows(torch.utils.data.Dataset):
    r"""Rows made of one or several rows of a dataset, joined when they are asked for.

    A row has the columns `audio`, as samples of 16 kHz, `text`, `timestamped_text`, the `previous_text` of the first
    of its clips and the `language` of all. The segment times of a clip without any are its borders.

    Args:
        rows (`Dataset`): with `audio` and `text`.
        members (`Sequence[Sequence[int]]`): for each row, those that it is made of, in their order.
        unchanged (`Collection[int]`): numbers of the rows, made of one each, that stay the dataset's own.
        steps (`Sequence[int]`): length of each row of the dataset, in steps of Whisper's timestamps; a clip is cut or
            filled with silence to its steps, so that the times of the next are exact.
        encoder (`LabelEncoder`): knows the languages of the rows.
    """

    def __init__(
        self,
        rows: Dataset,
        members: Sequence[Sequence[int]],
        unchanged: Collection[int],
        steps: Sequence[int],
        encoder: LabelEncoder,
    ) -> None:
        self._rows = rows
        self.members = members
        self._unchanged = unchanged
        self._steps = steps
        self._encoder = encoder

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int) -> dict[str, Any]:
        members = self.members[index]
        if index in self._unchanged:
            return self._rows[members[0]]
        return self._joined([self._rows[member] for member in members], [self._steps[member] for member in members])

    def _joined(self, rows: Sequence[Mapping[str, Any]], steps: Sequence[int]) -> dict[str, Any]:
        first = rows[0]
        language = self._encoder.row_language(first)
        texts = [spaced(plain_text(row["text"], language).strip(), language) for row in rows]
        starts = np.cumsum([0, *steps[:-1]]).tolist()
        clips = map(_of_steps, (load_audio(row["audio"]) for row in rows), steps)
        joined = {
            "audio": {
                "array": np.concatenate(list(clips)),
                "sampling_rate": SAMPLING_RATE,
                "path": describe_audio(first["audio"]) + (f" and {len(rows) - 1} more" if len(rows) > 1 else ""),
            },
            "text": "".join(texts).strip(),
            "timestamped_text": "".join(map(_later, rows, texts, starts, steps)),
        }
        return joined | {name: first[name] for name in ("language", "previous_text") if name in first}


def join_rows(
    usable: UsableRows[Dataset],
    encoder: LabelEncoder,
    window: float,
    max_target_positions: int,
    joined_probability: float,
    seed: int,
) -> tuple[JoinedRows, list[float | None]]:
    r"""Join a share of the rows with others of the same `speaker` and `language`, in their order, as many as fit.

    Seed and number of a row decide alone whether it may be joined, so that every epoch has the same rows. Without a
    column `speaker`, neighbours are joined whoever speaks. Rows whose features or labels are prepared, and those that
    have no room for segment times, stay as they are.

    Args:
        usable (`UsableRows`): rows with `audio` and `text`, and their seconds.
        encoder (`LabelEncoder`): counts the label tokens.
        window (`float`): most seconds of a row.
        max_target_positions (`int`): most label tokens of a row.
        joined_probability (`float`): share of the rows.
        seed (`int`): of the draws.

    Returns:
        `tuple[JoinedRows, list[float | None]]`: the rows, and the seconds of each.
    """
    rows, seconds = usable.dataset, usable.seconds or []
    drawn = np.random.default_rng(seed).random(len(rows)) < joined_probability
    steps = [0 if length is None else _steps(length) for length in seconds]
    most_steps = _steps(window)
    without_audio = rows.select_columns(
        [name for name in rows.column_names if name not in ("audio", "input_features")]
    )
    members: list[list[int]] = []
    unchanged: set[int] = set()
    # The row that others of a speaker may still be joined to: its number, steps and tokens.
    open_rows: dict[Hashable, tuple[int, int, int]] = {}
    for index, row in enumerate(without_audio):
        is_prepared = seconds[index] is None or prepared_labels(row) is not None
        tokens = 0 if is_prepared else encoder.longest(row) + 2  # and the timestamps around it
        is_unchanged = is_prepared or tokens > max_target_positions
        if is_unchanged:
            unchanged.add(len(members))
        if is_unchanged or not drawn[index]:
            members.append([index])
            continue
        speaker = (row.get("speaker"), encoder.row_language(row))
        number, its_steps, its_tokens = open_rows.get(speaker, (-1, most_steps, 0))
        if its_steps + steps[index] > most_steps or its_tokens + tokens > max_target_positions:
            number, its_steps, its_tokens = len(members), 0, 0
            members.append([])
        members[number].append(index)
        open_rows[speaker] = number, its_steps + steps[index], its_tokens + tokens
    lengths = [
        seconds[own[0]] if number in unchanged else RESOLUTION * sum(steps[index] for index in own)
        for number, own in enumerate(members)
    ]
    return JoinedRows(rows, members, unchanged, steps, encoder), lengths


def _steps(seconds: float) -> int:
    """Whole steps of Whisper's timestamps that hold so many seconds; what floats add to the last does not count."""
    return int(np.ceil(seconds / RESOLUTION - 1e-6))


def _of_steps(samples: np.ndarray, steps: int) -> np.ndarray:
    length = steps * _STEP_SAMPLES
    return np.pad(samples[:length], (0, max(0, length - samples.size)))


def _later(row: Mapping[str, Any], text: str, start: int, steps: int) -> str:
    """The row's timestamped text with its times moved by some steps; of one without, the clip is the segment."""
    stamped = timestamped_text(row)
    if stamped is None:
        return f"{_stamp(start)}{text}{_stamp(start + steps)}"
    pieces = at_timestamps(stamped)
    pieces[1::2] = [_stamp(start + min(timestamp_step(piece) or 0, steps)) for piece in pieces[1::2]]
    return "".join(pieces)


def _stamp(step: int) -> str:
    return timestamp_token(step * RESOLUTION)
