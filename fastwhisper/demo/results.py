"""What a demo ends with: student and teacher measured on held-out speech, and a recording with times."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..data.loading import DatasetSource
from ..evaluation.evaluate import evaluate
from ..evaluation.report import write_report
from ..files import write_whole
from ..hub_cards.card import write_card
from ..transcription.checkpoints import load_checkpoint
from ..transcription.decoding import GenerationOptions, generate_transcripts
from ..transcription.subtitles import WRITERS
from ..transcription.transcripts import Transcript


@dataclass(frozen=True)
class DemoReport:
    """What the demo made.

    Args:
        student (`Path`): folder of the student, with its card, curves and measurements.
        evaluation (`dict`): the report of [`evaluate`] on student and teacher.
        subtitles (`Path`): the student's subtitles of the recording.
        transcript (`Transcript`): the same, with its segments.
    """

    student: Path
    evaluation: dict[str, Any]
    subtitles: Path
    transcript: Transcript


def measure(
    folder: Path,
    student: Path,
    teacher: str,
    held_out: DatasetSource,
    recording: np.ndarray,
    language: str | None = None,
    device: str | None = None,
    dataset_name: str | None = None,
) -> DemoReport:
    """Measure student and teacher clip by clip, write the student's card, and transcribe the recording.

    Args:
        folder (`Path`): of the demo; the subtitles go there.
        student (`Path`): its folder; the measurements go there.
        teacher (`str`): name or folder.
        held_out (`DatasetSource`): speech to measure on.
        recording (`np.ndarray`): samples `(samples,)` at 16 kHz.
        language (`str`, *optional*): of the speech; by default the model's own.
        device (`str`, *optional*): by default CUDA if available.
        dataset_name (`str`, *optional*): for the report; by default the held-out speech's own.
    """
    report = evaluate(
        str(student),
        held_out,
        against=teacher,
        batch_size=1,
        language=language,
        device=device,
        dtype="float32" if device == "cpu" else None,
    )
    report["dataset"]["name"] = dataset_name or report["dataset"]["name"]
    write_report(report, student / "evaluation.json")
    write_card(student)
    model, processor = load_checkpoint(str(student), device)
    options = GenerationOptions(language=language, word_timestamps=True)
    (transcript,) = generate_transcripts(model, processor, [recording], options)
    subtitles = folder / "recording.vtt"
    write_whole(subtitles, WRITERS["vtt"]("recording.wav", transcript))
    return DemoReport(student, report, subtitles, transcript)
