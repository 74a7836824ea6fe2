"""Write an untrained student as a Hub-ready folder."""

import os
import tempfile
from pathlib import Path

from ..errors import InputError
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..transcription.checkpoints import load_checkpoint
from .export import export_folder


def write_new_student(
    teacher: str,
    folder: str | os.PathLike,
    decoder_layers: int = 4,
    encoder_layers: int | None = None,
    trust_remote_code: bool = False,
) -> FastWhisperForConditionalGeneration:
    """Build a student from a teacher's layers and write it, with the teacher's processor, into a new folder.

    Args:
        teacher (`str`): Name on the Hub or folder of a Whisper.
        folder (`str` or `os.PathLike`): It must not exist yet, and does not exist after a failure.
        decoder_layers (`int`, *optional*, defaults to 4): As for [`FastWhisperForConditionalGeneration.from_teacher`].
        encoder_layers (`int`, *optional*): All of the teacher's by default.
        trust_remote_code (`bool`, *optional*, defaults to `False`): As for [`load_checkpoint`].

    Returns:
        The student.

    Raises:
        InputError: if the folder exists, for a teacher that is not a Whisper, or for layers that it does not have.
    """
    folder = Path(folder)
    if folder.exists():
        raise InputError(f"{folder} already exists: choose a new folder or remove it")
    model, processor = load_checkpoint(teacher, "cpu", "float32", trust_remote_code)
    try:
        student = FastWhisperForConditionalGeneration.from_teacher(model, decoder_layers, encoder_layers)
    except ValueError as error:
        raise InputError(str(error)) from error
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
        export_folder(student, processor, Path(staging) / "student").rename(folder)
    return student
