"""Rows and trainers at true length, for tests in this process and in others."""

import numpy as np

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.data.collator import SpeechCollator

from ..hub_folders import demo_processor
from ..tiny_models import tiny_whisper

WINDOW_SECONDS = 4


def noise_rows(seconds, vocabulary=800, seed=0):
    """Loud noise with labels of 3 to 7 tokens."""
    draws = np.random.default_rng(seed)
    return [
        {
            "audio": {"array": draws.uniform(-0.9, 0.9, round(16_000 * length)).astype(np.float32),
                      "sampling_rate": 16_000, "path": f"row-{index}.wav"},
            "labels": draws.integers(vocabulary, size=3 + index % 5).tolist(),
        }
        for index, length in enumerate(seconds)
    ]  # fmt: skip


def true_length_trainer(tokenizer, folder, seconds, student=None, teacher=None, callbacks=None, **settings):
    """A 2 layer student of a 4 layer teacher; both hear 4 s."""
    teacher = tiny_whisper(tokenizer, seconds=WINDOW_SECONDS) if teacher is None else teacher
    if student is None:
        student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2)
    settings = {
        "per_device_train_batch_size": 4, "max_steps": 4, "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "learning_rate": 1e-3, "use_cpu": True, "disable_tqdm": True, "seed": 0,
        "true_length": True, **settings,
    }  # fmt: skip
    return ASKDTrainer(
        model=student,
        teacher_model=teacher,
        args=ASKDTrainingArguments(output_dir=str(folder), **settings),
        train_dataset=noise_rows(seconds),
        data_collator=SpeechCollator(demo_processor(tokenizer, seconds=WINDOW_SECONDS)),
        callbacks=callbacks,
    )
