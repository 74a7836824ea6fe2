"""The teacher's states of labelled rows, as `distill` will ask for them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.nn.utils.rnn import pad_sequence
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.collator import IGNORED, SpeechCollator
from ..data.loading import load_speech_dataset
from ..data.row_checks import RowCheck
from ..data.row_store import RowStore, readable_size
from ..data.stored_states import heard_key
from ..errors import check_probabilities
from ..progress import progress_bar
from ..transcription.checkpoints import DTYPES
from ..transcription.decoding import GenerationOptions
from ..transcription.lazy_whisper import LazyWhisper
from ..transcription.teacher_states import TeacherStates, check_cache_dtype, row_key
from ..transcription.training_collator import training_collator


@dataclass(frozen=True)
class StatesSettings:
    r"""Where the teacher's states of labelled rows are kept, and how `distill` will draw what it asks for.

    Args:
        folder (`str` or `os.PathLike`): of the cache.
        dtype (`str`, *optional*, defaults to `"float16"`): what they are kept in.
        timestamp_probability, prompt_probability (`float`, *optional*, defaults to 0.2): those of `distill`.
        seed (`int`, *optional*, defaults to 42): that of `distill`.

    Raises:
        InputError: for a precision that is none, or a share that is not from 0 to 1.
    """

    folder: str | os.PathLike
    dtype: str = "float16"
    timestamp_probability: float = 0.2
    prompt_probability: float = 0.2
    seed: int = 42

    def __post_init__(self) -> None:
        check_cache_dtype(self.dtype)
        check_probabilities(
            timestamp_probability=self.timestamp_probability, prompt_probability=self.prompt_probability
        )


def keep_states(
    model: WhisperForConditionalGeneration,
    name: str | os.PathLike,
    processor: WhisperProcessor,
    labels: Path,
    options: GenerationOptions,
    settings: StatesSettings,
    state: PartialState,
    trust_remote_code: bool = False,
) -> str:
    """Run a teacher on the rows of a labelled folder whose states are not there, and keep them; on all processes.

    Args:
        model (`WhisperForConditionalGeneration`): the teacher, on the device of this process.
        name (`str` or `os.PathLike`): its name or folder.
        processor (`WhisperProcessor`): its processor.
        labels (`Path`): the folder.
        options (`GenerationOptions`): language, task, and how many rows at a time.
        settings (`StatesSettings`): where they are kept, and what is drawn.
        state (`PartialState`): this process among those that share the rows.
        trust_remote_code (`bool`, *optional*, defaults to `False`): as for [`load_checkpoint`].

    Returns:
        `str`: how many rows all processes computed, and the size of the cache.

    Raises:
        InputError: if the folder of the cache cannot be written in.
    """
    collator = training_collator(
        model,
        processor,
        options.language,
        options.task,
        timestamp_probability=settings.timestamp_probability,
        prompt_probability=settings.prompt_probability,
        seed=settings.seed,
    )
    check = RowCheck.for_training(processor, collator.max_target_positions, collator.language, options.task)
    dtype = str(model.dtype).removeprefix("torch.")
    teacher = LazyWhisper.of_checkpoint(name, dtype, trust_remote_code)
    teacher.model = model.eval().requires_grad_(False)
    store = RowStore(settings.folder)
    states = TeacherStates.of(teacher, store, processor.feature_extractor, DTYPES[settings.dtype])
    rows, computed, waiting = load_speech_dataset(labels), 0, []
    mine = range(state.process_index, len(rows), state.num_processes)  # type: ignore[arg-type]
    with progress_bar(state.is_main_process) as bar:
        for index in bar.track(mine, description="keeping the teacher's states"):
            row: Any = rows[index]  # type: ignore[index]
            if check(row) is None:
                key = row_key(states.stored, heard_key(row), *collator.decoder_sequences(row))
                waiting += [(key, row)] if key not in store else []
            if waiting and (len(waiting) == options.batch_size or index == mine[-1]):
                _compute(states, collator, waiting, model.device)
                computed += len(waiting)
                waiting = []
    total = sum(gather_object([computed]))
    entries, size = store.size()
    return (
        f"teacher_cache {store.folder}: {total} rows computed with dtype {dtype}; it has {entries} entries, "
        f"{readable_size(size)}"
    )


def _compute(
    states: TeacherStates, collator: SpeechCollator, keyed: Sequence[tuple[str, Any]], device: torch.device
) -> None:
    keys, rows = [key for key, _ in keyed], [row for _, row in keyed]
    batch = collator(rows)
    inputs = [collator.decoder_sequences(row)[0] for row in rows]
    padding = int(states.teacher.config.pad_token_id or 0)
    ids = pad_sequence(inputs, batch_first=True, padding_value=padding)
    targets = batch["labels"].ne(IGNORED)
    encoded = states.teacher.encode(batch["input_features"].to(device))
    states.compute(keys, encoded, ids.to(device), targets.to(device))
