"""The training and dev rows: whole speakers are split off for dev."""

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import WhisperProcessor

from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.text_case import with_sentence_case
from fastwhisper.errors import InputError

from .augmentation import joined, with_copies
from .config import Config, Dev, Source, rows_key
from .place import Place


def load_rows(source: Source, place: Place, require_text: bool = True) -> Dataset:
    """The rows of a source, with its casing; a limit takes every n-th, as the first ones are of few speakers.

    Raises:
        InputError: if there are none.
    """
    rows: Any = load_speech_dataset(
        place.dataset(source.data),
        dataset_config=source.config,
        split=source.split,
        text_column=source.text_column,
        require_text=require_text,
    )
    if source.limit is not None and source.limit < len(rows):
        rows = rows.select(np.linspace(0, len(rows) - 1, source.limit).round().astype(int))
    if source.casing == "sentence":
        rows = with_sentence_case(rows)
    return rows


def with_texts(rows: Dataset, texts: Sequence[str | None]) -> Dataset:
    """The rows with other texts."""
    return rows.remove_columns("text").add_column("text", list(texts))


def split(config: Config, place: Place) -> tuple[Path, Path]:
    """The folders of the training and the dev rows, as `datasets` saves them."""
    key = rows_key(config)[:16]
    with place.made_once("data", key) as folder:
        if folder is not None:
            rows = load_rows(config.train, place)
            chosen = dev_speakers(rows, config.dev)
            is_dev = [speaker in chosen for speaker in rows[config.dev.speaker]]
            dev = [index for index, within in enumerate(is_dev) if within]
            if config.dev.limit is not None:
                # Not the first: these are of few speakers.
                dev = sorted(random.Random(config.dev.seed).sample(dev, min(config.dev.limit, len(dev))))
            train = [index for index, within in enumerate(is_dev) if not within]
            audio = place.work / "augmented" / key
            kept = rows.select(train)
            if config.augmentation.joined_probability > 0.0:
                processor = WhisperProcessor.from_pretrained(place.model(config.teachers[0].name))
                kept = joined(kept, config.augmentation, processor, config.train.language, audio)
            with_copies(kept, config.augmentation, audio).save_to_disk(folder / "train")
            rows.select(dev).save_to_disk(folder / "dev")
    return place.work / "data" / key / "train", place.work / "data" / key / "dev"


def dev_speakers(rows: Dataset, dev: Dev) -> set[Any]:
    """The speakers split off: of each group its share, at least one, by the seed.

    Raises:
        InputError: for a column that there is not, and a group that has no speaker left to train on.
    """
    for column in filter(None, (dev.speaker, dev.group)):
        if column not in rows.column_names:
            raise InputError(f"the training rows have no column {column!r}; they have {', '.join(rows.column_names)}")
    speakers: dict[Any, set[Any]] = defaultdict(set)
    groups = rows[dev.group] if dev.group is not None else [None] * len(rows)
    for group, speaker in zip(groups, rows[dev.speaker], strict=True):
        speakers[group].add(speaker)
    draws, chosen = random.Random(dev.seed), set[Any]()
    for group in sorted(speakers, key=str):
        names = sorted(speakers[group], key=str)
        if len(names) < 2:
            raise InputError(f"the group {group!r} has one speaker: none is left to train on without dev's")
        chosen.update(draws.sample(names, min(max(1, round(dev.share * len(names))), len(names) - 1)))
    return chosen
