"""The texts that an arm learns from: references, or the teacher's own, filtered."""

from pathlib import Path
from typing import Any

from transformers import WhisperProcessor

from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError
from fastwhisper.evaluation.metrics import word_error_rate
from fastwhisper.evaluation.normalizers import text_normalizer

from .config import Config, Teacher, rows_key, settings_key
from .place import Place
from .splits import split, with_texts
from .teacher_pass import teacher_pass


def label_folder(config: Config, place: Place, teacher: Teacher, whisper: str, kind: str) -> Path:
    """The folder of the training rows with `references`, or with the labels of a teacher (`pseudo`): of these, rows
    whose label and reference differ by more than the filter's WER are left out, as `fastwhisper label` does.

    Args:
        whisper (`str`): the teacher's folder or name on the Hub.

    Raises:
        InputError: if no row is left.
    """
    train = split(config, place)[0]
    if kind == "references":
        return train
    written = teacher_pass(config, place, teacher, whisper).texts
    key = settings_key(rows_key(config), config.wer_filter, teacher, Path(whisper).name)[:16]
    with place.made_once("labels", key) as folder:
        if folder is not None:
            rows: Any = load_speech_dataset(train)
            normalize = text_normalizer(config.train.language, WhisperProcessor.from_pretrained(whisper).tokenizer)
            kept = [
                index
                for index, (text, reference) in enumerate(zip(written, rows["text"], strict=True))
                if text.strip() and reference and _agree(normalize(reference), normalize(text), config.wer_filter)
            ]
            if not kept:
                raise InputError(f"no row of {whisper}'s labels passes wer_filter={config.wer_filter}: raise it")
            with_texts(rows, written).select(kept).save_to_disk(folder)
    return place.work / "labels" / key


def _agree(reference: str, text: str, most: float | None) -> bool:
    return most is None or word_error_rate([reference], [text]) <= most
