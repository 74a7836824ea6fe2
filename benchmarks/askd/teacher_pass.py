"""The teacher hears every training row once, and all that anything asks of it is kept.

That is its own text, its decoder's states on the reference and on that text, from which a student learns what it
predicts, and its encoder's states over the speech. Its encoder on 30 s is nearly all of what that costs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperProcessor

from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.data.row_store import RowStore
from fastwhisper.data.true_length_features import sample_frames
from fastwhisper.errors import InputError
from fastwhisper.progress import progress_bar
from fastwhisper.trainers.cached_rows import encoder_key
from fastwhisper.trainers.encoder_distance import speech_positions
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.lazy_whisper import LazyWhisper
from fastwhisper.transcription.teacher_states import TeacherStates, row_key

from .config import Config, Teacher, rows_key, settings_key
from .decoding import padded_sequences, texts
from .place import Place
from .speech_sets import Clip, Ear
from .splits import split

STATES = "teacher_states"  # the folder of the cache that `distill` reads
BATCH_SIZE = 8
_MOST_TOKENS = 200


@dataclass(frozen=True)
class TeacherPass:
    """What a teacher made of the training rows.

    Args:
        texts (`list[str]`): its text of every row.
        states (`TeacherStates`): the states that are kept.
    """

    texts: list[str]
    states: TeacherStates

    def encoder_states(self, clip: Clip, extractor: Any) -> torch.Tensor:
        """Its encoder's states over the speech of a training row, `(positions, hidden)` float32."""
        positions = _positions(clip, extractor)
        states = self.states.encoder.read(encoder_key(self.states.encoder, clip.heard, positions), positions)
        if states is None:
            raise InputError(f"{self.states.encoder.store.folder} has lost states: remove the folder of work above it")
        return states.float()


def teacher_pass(config: Config, place: Place, teacher: Teacher, whisper: str) -> TeacherPass:
    """What a teacher makes of the training rows; what it has not heard yet it hears now.

    Args:
        whisper (`str`): its folder or name on the Hub.
    """
    name = settings_key(rows_key(config), teacher, Path(whisper).name)[:16]
    path, store = place.work / "passes" / f"{name}.jsonl", RowStore(place.work / STATES)
    rows: Any = load_speech_dataset(split(config, place)[0])
    with place.held("passes", name):
        found = _read(path)
        if len(found) < len(rows):
            model, processor = load_checkpoint(whisper, place.device, "float32")
            lazy = LazyWhisper.of_checkpoint(whisper)
            lazy.model = model.requires_grad_(False)
            states = TeacherStates.of(lazy, store, processor.feature_extractor, torch.float16)
            missing = [index for index in range(len(rows)) if index not in found]
            with progress_bar() as bar, path.open("a", encoding="utf-8") as file:
                starts = range(0, len(missing), BATCH_SIZE)
                for first in bar.track(starts, description=f"{teacher.name} hears the training rows"):
                    batch = missing[first : first + BATCH_SIZE]
                    clips = [Clip.of_row(rows[index], teacher.language or config.train.language) for index in batch]
                    for index, text in zip(batch, _hear(clips, states, Ear(model, processor)), strict=True):
                        found[index] = text
                        file.write(json.dumps({"row": index, "text": text}) + "\n")
                    file.flush()
    processor = WhisperProcessor.from_pretrained(whisper)
    lazy = LazyWhisper.of_checkpoint(whisper)
    states = TeacherStates.of(lazy, store, processor.feature_extractor, torch.float16)
    return TeacherPass([found[index] for index in range(len(rows))], states)


@torch.no_grad()
def _hear(clips: Sequence[Clip], states: TeacherStates, ear: Ear) -> list[str]:
    """The texts of clips; all states on them are kept."""
    encoded = ear.encoded(clips)
    # A text that never stops is cut: the filter leaves it out, and as a label it must fit the decoder.
    most = min(_MOST_TOKENS, ear.model.config.max_target_positions // 2)
    written = [text for text, _ in texts(ear, clips, encoded, [most] * len(clips))]
    its = [replace(clip, text=text) for clip, text in zip(clips, written, strict=True)]
    for spoken in (clips, its):
        sequences, inputs, targets = padded_sequences(ear, spoken)
        keys = [row_key(states.stored, clip.heard, *pair) for clip, pair in zip(spoken, sequences, strict=True)]
        states.compute(keys, encoded[0], inputs, targets.ne(-100))
    for clip, hidden in zip(clips, encoded[0], strict=True):
        positions = _positions(clip, ear.processor.feature_extractor)
        states.encoder.write(encoder_key(states.encoder, clip.heard, positions), hidden[:positions])
    return written


def _positions(clip: Clip, extractor: Any) -> int:
    return int(speech_positions(torch.tensor(sample_frames(clip.samples, extractor))))


def _read(path: Path) -> dict[int, str]:
    """The texts by row; what a killed writer left of a line is removed."""
    if not path.exists():
        return {}
    whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
    lines = [json.loads(line) for line in whole.splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return {line["row"]: line["text"] for line in lines}
