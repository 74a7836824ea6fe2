"""A student in other engines: tiny ones, and those of published Whispers."""

import csv
from pathlib import Path

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.data.audio import load_audio
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.transcription.checkpoints import load_checkpoint
from fastwhisper.transcription.transcribe import transcribe
from fastwhisper.transcription.transcripts import Transcript

from .recordings import tiny_processor, write_only_words
from .tiny_models import tiny_whisper


def write_tiny_student(
    folder: Path, tokenizer, seconds: int = 2, true_length: bool = False, allowed: int | None = None, **settings
) -> Path:
    """A random student that writes words and times, or no times and only so many different tokens, in a folder."""
    settings.setdefault("max_target_positions", 24)
    teacher = tiny_whisper(tokenizer, seconds=seconds, **settings)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    student.config.true_length = true_length
    write_only_words(student, tokenizer)
    if allowed is not None:
        left = {*range(100, 100 + allowed), tokenizer.eos_token_id}
        student.generation_config.suppress_tokens = [token for token in range(len(tokenizer)) if token not in left]
    return export_folder(student, tiny_processor(tokenizer, seconds), folder)


def write_student(teacher: Path, decoder_layers: int, folder: Path) -> Path:
    """An untrained student of a published Whisper, in a folder."""
    model, processor = load_checkpoint(teacher, "cpu")
    student = FastWhisperForConditionalGeneration.from_teacher(model, decoder_layers=decoder_layers)
    return export_folder(student, processor, folder)


def sentences(folder: Path, count: int) -> tuple[list, list[str]]:
    """Samples and texts of the first recordings of a folder with a metadata.tsv, at most 30 s each."""
    with open(folder / "metadata.tsv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))[:count]
    names = [row.get("file_name") or row["file"] for row in rows]
    paths = [next(folder.rglob(Path(name).name)) for name in names]
    return [load_audio(path) for path in paths], [row["text"] for row in rows]


def transcripts(model, processor, clips: list, **options) -> list[Transcript]:
    """What `fastwhisper.transcribe` makes of clips."""
    return [transcribe(clip, (model, processor), **options).transcript for clip in clips]
