"""A teacher with a planted blind spot: some words it always takes for others, in its labels and its distribution.

It is a real model: the teacher's decoder, trained for a few minutes on texts in which every planted word is replaced
by the one that it is mistaken for.
"""

import random
import re
import shutil
from collections import Counter
from collections.abc import Sequence
from typing import Any

from transformers import WhisperProcessor

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration, distill
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.transcription.checkpoints import load_checkpoint

from .config import BlindSpot, Config, Teacher, rows_key, settings_key
from .place import Place
from .splits import split, with_texts

_WORD = re.compile(r"[a-z]+(?:'[a-z]+)*", re.IGNORECASE)


def teacher_with_blind_spot(
    config: Config, place: Place, teacher: Teacher, table: str
) -> tuple[str, dict[str, str] | None]:
    """The folder or name of a table's teacher, and the words it mistakes, each with what for; `None` of none."""
    spot, whisper = config.tables[table].blind_spot, place.model(teacher.name)
    if spot is None:
        return whisper, None
    train: Any = load_speech_dataset(split(config, place)[0])
    planted = planted_words(train["text"], spot)
    key = settings_key(teacher, spot, rows_key(config))[:16]
    with place.made_once("blind_teachers", key) as folder:
        if folder is not None:
            chosen = random.Random(spot.seed).sample(range(len(train)), min(spot.rows or len(train), len(train)))
            rows = train.select(sorted(chosen))
            rows = with_texts(rows, [falsified(text, planted) for text in rows["text"]])
            model, processor = load_checkpoint(whisper, "cpu", "float32")
            whole = FastWhisperForConditionalGeneration.from_teacher(model, model.config.decoder_layers)
            whole.save_pretrained(folder / "before")
            processor.save_pretrained(folder / "before")
            distill(
                whisper,
                rows,
                ASKDTrainingArguments(
                    output_dir=str(folder / "after"),
                    teacher_weight=0.0,
                    self_weight=0.0,
                    num_train_epochs=spot.epochs,
                    per_device_train_batch_size=spot.batch_size,
                    learning_rate=spot.learning_rate,
                    seed=spot.seed,
                    save_strategy="no",
                    report_to="none",
                    use_cpu=place.device == "cpu",
                ),
                student=str(folder / "before"),
                language=teacher.language,
                timestamp_probability=0.0,
                prompt_probability=0.0,
                encoder_cache=folder / "encoder_states",
            )
            blind, _ = load_checkpoint(folder / "after", "cpu", "float32")
            blind.save_pretrained(folder)
            WhisperProcessor.from_pretrained(folder / "before").save_pretrained(folder)
            for part in ("before", "after", "encoder_states"):
                shutil.rmtree(folder / part)
    return str(place.work / "blind_teachers" / key), planted


def planted_words(texts: Sequence[str], spot: BlindSpot) -> dict[str, str]:
    """Words to mistake, drawn from those that are frequent enough to be learnt, each with another that is not drawn.

    Both are in lower case and of letters alone, so that normalising leaves them as they are.
    """
    counts = Counter(word.lower() for text in texts for word in _WORD.findall(text))
    known = sorted(word for word, count in counts.items() if count >= spot.least_count and word.isalpha())
    draws = random.Random(spot.seed)
    drawn = draws.sample(known, max(1, round(spot.share * len(known))))
    others = sorted(set(known) - set(drawn))
    return dict(zip(sorted(drawn), draws.sample(others, len(drawn)), strict=True))


def falsified(text: str, planted: dict[str, str]) -> str:
    """The text with every planted word replaced; a capital stays one."""

    def other(match: re.Match[str]) -> str:
        word = match[0]
        found = planted.get(word.lower(), word)
        return found[0].upper() + found[1:] if word[0].isupper() and found != word else found

    return _WORD.sub(other, text)
