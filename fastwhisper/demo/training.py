"""The training of the demo's student: ASKD at true length, on clips in memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from ..data.collator import SpeechCollator
from ..evaluation.alignment import measure_alignment_heads
from ..evaluation.training_metrics import training_metrics
from ..hub_cards.callback import ModelCardCallback
from ..hub_cards.export import export_folder
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
from ..modeling.waveforms import SAMPLING_RATE
from ..synthetic_speech.espeak import SyntheticClip
from ..synthetic_speech.hotel import vocabulary
from ..trainers.askd_arguments import ASKDTrainingArguments
from ..trainers.askd_trainer import ASKDTrainer
from ..trainers.training_bar import show_training_bar

PACKAGED_TEACHER = Path(__file__).parents[1] / "assets" / "demo_teacher"
WORDS = len(vocabulary())
LIMITS = [
    f"It knows {WORDS} words in synthetic voices: it shows that the pipeline works and transcribes nothing else."
]


def train(
    training: Sequence[SyntheticClip],
    validation: Sequence[SyntheticClip],
    student_folder: Path,
    teacher_folder: Path,
    steps: int,
    decoder_layers: int,
    seed: int,
) -> None:
    """Train a student of the packaged teacher; both are written as folders.

    The teacher is no help for long where it is wrong: the schedule `gap` lets go of it as soon as the student is
    better.
    """
    torch.manual_seed(seed)
    processor = WhisperProcessor.from_pretrained(PACKAGED_TEACHER)
    teacher = WhisperForConditionalGeneration.from_pretrained(PACKAGED_TEACHER, dtype=torch.float32)
    export_folder(teacher, processor, teacher_folder)
    # From the folder: the student records its name, by which the card finds the teacher among the measured models.
    teacher = WhisperForConditionalGeneration.from_pretrained(teacher_folder)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers)
    card = ModelCardCallback(
        teacher,
        datasets=["synthetic hotel requests (eSpeak NG)"],
        language="en",
        teacher_license="apache-2.0",
        limits=LIMITS,
    )
    trainer = ASKDTrainer(
        model=student,
        teacher_model=teacher,
        args=demo_arguments(student_folder, steps, seed),
        train_dataset=rows_of(training, processor),
        eval_dataset=rows_of(validation, processor),
        data_collator=demo_collator(processor, teacher.config.max_target_positions, seed),
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


def demo_arguments(folder: Path, steps: int, seed: int, **changes: Any) -> ASKDTrainingArguments:
    """The settings of the demo's training, with changes."""
    settings: dict[str, Any] = {
        "output_dir": str(folder),
        "schedule": "gap",
        "true_length": True,
        "full_length_probability": 0.1,
        "max_steps": steps,
        "per_device_train_batch_size": 16,
        "per_device_eval_batch_size": 24,
        "learning_rate": 1.5e-3,
        "warmup_steps": 20,
        "lr_scheduler_type": "cosine",
        "weight_decay": 0.01,
        "logging_steps": max(1, steps // 60),
        "eval_strategy": "steps",
        "eval_steps": max(1, steps // 6),
        "eval_on_start": True,
        "predict_with_generate": True,
        "generation_max_length": 64,
        "save_strategy": "no",
        "remove_unused_columns": False,
        "report_to": "none",
        "seed": seed,
        "use_cpu": True,
        "dataloader_pin_memory": False,
    }
    return ASKDTrainingArguments(**{**settings, **changes})


def demo_collator(processor: WhisperProcessor, max_target_positions: int, seed: int) -> SpeechCollator:
    """Half of the rows are trained with their times, so that recordings can be transcribed along them."""
    return SpeechCollator(
        processor,
        language="en",
        timestamp_probability=0.5,
        max_target_positions=max_target_positions,
        seed=seed,
    )


def rows_of(clips: Sequence[SyntheticClip], processor: WhisperProcessor) -> list[dict[str, Any]]:
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
