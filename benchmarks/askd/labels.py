"""What a teacher gives an arm to learn from: references or its own labels, and its states on them."""

from pathlib import Path

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
    with place.held("labels", key):
        if not (folder / "metadata.jsonl").exists():
            # It goes on where it was killed, and writes the table at the end.
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


def fill_teacher_cache(place: Place, teacher: Teacher, whisper: str, labels: Path) -> Path:
    """Keep the teacher's states on labels, so that no cell runs it; the folder of the cache."""
    cache = place.work / "teacher_states"
    with place.made_once("filled", settings_key(labels.name, labels.parent.name, Path(whisper).name)[:16]) as is_new:
        if is_new is not None:
            model, processor = load_checkpoint(whisper, place.device, "float32")
            options = GenerationOptions(language=teacher.language, batch_size=BATCH_SIZE)
            settings = StatesSettings(cache, timestamp_probability=0.0, prompt_probability=0.0)
            keep_states(model, whisper, processor, labels, options, settings, PartialState(cpu=place.device == "cpu"))
    return cache
