"""What a teacher gives an arm to learn from: references or its own labels, and its states on them."""

from pathlib import Path

import torch
from accelerate import PartialState

from fastwhisper import label
from fastwhisper.labelling.label_states import StatesSettings, keep_states
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.decoding import GenerationOptions

from .config import Config, Teacher, settings_key
from .place import Place
from .splits import split

BATCH_SIZE = 8


def label_folder(config: Config, place: Place, teacher: Teacher, whisper: str, kind: str) -> Path:
    """The folder of the training rows with `references`, or with the labels of a teacher, filtered (`pseudo`).

    Args:
        whisper (`str`): the teacher's folder or name on the Hub, where that is not its own.
    """
    train = split(config, place)[0]
    if kind == "references":
        return train
    key = settings_key(config.train, config.dev, config.wer_filter, teacher, Path(whisper).name)[:16]
    folder = place.work / "labels" / key
    if not (folder / "metadata.jsonl").exists():
        # It resumes where it was killed, and writes the table at the end.
        label(
            whisper,
            train,
            folder,
            language=teacher.language,
            timestamps=False,
            wer_filter=config.wer_filter,
            batch_size=BATCH_SIZE,
            device=place.device,
            dtype="float32",
        )
    return folder


def fill_teacher_cache(config: Config, place: Place, teacher: Teacher, whisper: str, labels: Path) -> Path:
    """Keep the teacher's states on labels, so that no cell runs it."""
    cache = place.work / "teacher_states"
    done = place.work / "filled" / settings_key(str(labels), Path(whisper).name)[:16]
    if not done.exists():
        model, processor = load_checkpoint(whisper, place.device, "float32")
        options = GenerationOptions(language=teacher.language, batch_size=BATCH_SIZE)
        settings = StatesSettings(cache, timestamp_probability=0.0, prompt_probability=0.0)
        with torch.inference_mode():
            keep_states(model, whisper, processor, labels, options, settings, PartialState(cpu=place.device == "cpu"))
        done.parent.mkdir(parents=True, exist_ok=True)
        done.touch()
    return cache
