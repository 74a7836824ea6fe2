"""The whole pipeline on a small scale, offline, in a few minutes on two cores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.collator import SpeechCollator
from ..errors import InputError
from ..evaluation.alignment import measure_alignment_heads
from ..evaluation.evaluate import evaluate
from ..evaluation.report import write_report
from ..evaluation.training_metrics import training_metrics
from ..files import write_whole
from ..hub_cards.callback import ModelCardCallback
from ..hub_cards.card import write_card
from ..hub_cards.export import export_folder
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.waveforms import SAMPLING_RATE
from ..synthetic_speech.espeak import (
    BREATHING_VARIANTS,
    HELD_OUT_VARIANTS,
    TRAINING_VARIANTS,
    SyntheticClip,
)
from ..trainers.askd_arguments import ASKDTrainingArguments
from ..trainers.askd_trainer import ASKDTrainer
from ..trainers.training_bar import show_training_bar
from ..transcription.checkpoints import load_checkpoint
from ..transcription.decoding import GenerationOptions, generate_transcripts
from ..transcription.subtitles import WRITERS
from ..transcription.transcripts import Transcript
from .speech import speak, write_dataset, write_recording

PACKAGED_TEACHER = Path(__file__).parents[1] / "assets" / "demo_teacher"
# Ranges of clip numbers, separate from those that the teacher was trained on (examples/train_demo_teacher.py).
TRAINING_CLIPS, VALIDATION_CLIPS, HELD_OUT_CLIPS, RECORDING_CLIPS = 40_000_000, 50_000_000, 60_000_000, 70_000_000


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


def run_demo(
    output: str, seed: int = 0, steps: int = 900, clips: int = 2400, held_out_clips: int = 160, decoder_layers: int = 2
) -> DemoReport:
    """Synthesise speech, distil the packaged teacher on it, measure both, and transcribe a recording.

    Args:
        output (`str`): Output folder; it must be empty or new.
        seed (`int`, *optional*, defaults to 0): Seed of the speech and of the training.
        steps (`int`, *optional*, defaults to 900): Training steps.
        clips (`int`, *optional*, defaults to 2400): Clips to train on.
        held_out_clips (`int`, *optional*, defaults to 160): Clips of held-out voices to measure on.
        decoder_layers (`int`, *optional*, defaults to 2): Decoder layers of the student; the teacher has 6.

    Raises:
        InputError: if the output folder is not empty, or eSpeak NG is missing.
    """
    folder = Path(output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: choose another --output, or remove it")
    first = seed * 1_000_000
    heard = [variant for variant in TRAINING_VARIANTS if variant not in BREATHING_VARIANTS]
    held_out = speak(HELD_OUT_CLIPS + first, held_out_clips, HELD_OUT_VARIANTS, "held-out voices", several=False)
    validation = speak(VALIDATION_CLIPS + first, 48, heard, "validation", several=False)
    training = speak(TRAINING_CLIPS + first, clips, heard, "training")
    write_dataset(folder / "held_out", held_out)
    recording = write_recording(folder / "recording.wav", RECORDING_CLIPS + first, HELD_OUT_VARIANTS)

    student, teacher = folder / "student", folder / "teacher"
    _train(training, validation, student, teacher, steps, decoder_layers, seed)
    report = evaluate(
        str(student), str(folder / "held_out"), against=str(teacher), batch_size=1, device="cpu", dtype="float32"
    )
    write_report(report, student / "evaluation.json")
    write_card(student)
    model, processor = load_checkpoint(str(student), "cpu", "float32")
    (transcript,) = generate_transcripts(model, processor, [recording], GenerationOptions(word_timestamps=True))
    subtitles = folder / "recording.vtt"
    write_whole(subtitles, WRITERS["vtt"]("recording.wav", transcript))
    return DemoReport(student, report, subtitles, transcript)


def _train(
    training: list[SyntheticClip],
    validation: list[SyntheticClip],
    student_folder: Path,
    teacher_folder: Path,
    steps: int,
    decoder_layers: int,
    seed: int,
) -> None:
    """Distil the packaged teacher into a student; both are written as folders."""
    torch.manual_seed(seed)
    processor = WhisperProcessor.from_pretrained(PACKAGED_TEACHER)
    teacher = WhisperForConditionalGeneration.from_pretrained(PACKAGED_TEACHER, dtype=torch.float32)
    export_folder(teacher, processor, teacher_folder)
    # From the folder: the student records its name, by which the card finds the teacher among the measured models.
    teacher = WhisperForConditionalGeneration.from_pretrained(teacher_folder)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers)
    card = ModelCardCallback(
        teacher,
        datasets=["synthetic household commands (eSpeak NG)"],
        language="en",
        teacher_license="apache-2.0",
        limits=[
            "It knows 269 words in synthetic voices: it shows that the pipeline works and transcribes nothing else."
        ],
    )
    trainer = ASKDTrainer(
        model=student,
        teacher_model=teacher,
        args=ASKDTrainingArguments(
            output_dir=str(student_folder),
            max_steps=steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=24,
            learning_rate=1.5e-3,
            warmup_steps=20,
            lr_scheduler_type="cosine",
            weight_decay=0.01,
            logging_steps=max(1, steps // 60),
            eval_strategy="steps",
            eval_steps=max(1, steps // 6),
            eval_on_start=True,
            predict_with_generate=True,
            generation_max_length=48,
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
            seed=seed,
            use_cpu=True,
            dataloader_pin_memory=False,
        ),
        train_dataset=_rows(training, processor),
        eval_dataset=_rows(validation, processor),
        data_collator=SpeechCollator(
            processor,
            language="en",
            timestamp_probability=0.5,
            max_target_positions=teacher.config.max_target_positions,
            seed=seed,
        ),
        compute_metrics=training_metrics(processor, "en"),
        processing_class=processor,
        callbacks=[card],
    )
    show_training_bar(trainer)
    trainer.train()
    heads = measure_alignment_heads(
        student, processor, [clip.samples for clip in validation], [clip.text for clip in validation], "en"
    )
    student.generation_config.update(alignment_heads=heads)
    export_folder(student, processor, student_folder)
    card.write(student_folder)


def _rows(clips: list[SyntheticClip], processor: WhisperProcessor) -> list[dict[str, Any]]:
    """Rows whose log-mel features are computed once; the collator makes the labels."""
    return [
        {
            "input_features": processor.feature_extractor(
                clip.samples, sampling_rate=SAMPLING_RATE, return_tensors="pt"
            ).input_features[0],
            "text": clip.text,
            "timestamped_text": clip.timestamped_text,
        }
        for clip in clips
    ]
