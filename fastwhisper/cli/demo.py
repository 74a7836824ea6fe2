"""`fastwhisper demo`: the whole job on a small scale, offline, in a few minutes on two cores."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import run_parsed

if TYPE_CHECKING:
    from ..synthetic_speech.espeak import SyntheticClip

DESCRIPTION = """\
Distil a small Whisper student on synthetic commands, compare it with its teacher on voices that neither has heard,
transcribe a recording with timestamps, and write a Hub-ready folder with a model card."""

WINDOW_SECONDS = 4
# Ranges of clip numbers, apart from those that the teacher was trained on (examples/train_demo_teacher.py).
TRAINING_CLIPS, VALIDATION_CLIPS, HELD_OUT_CLIPS, RECORDING_CLIPS = 40_000_000, 50_000_000, 60_000_000, 70_000_000


@dataclass
class DemoArguments:
    """Where the demo writes, and how much it does."""

    output: str = field(default="demo", metadata={"help": "folder to write; it must not exist yet or be empty"})
    seed: int = field(default=0, metadata={"help": "seed of the speech and of the training"})
    steps: int = field(default=900, metadata={"help": "training steps"})
    clips: int = field(default=2400, metadata={"help": "training clips to synthesise"})
    held_out_clips: int = field(default=160, metadata={"help": "clips of unheard voices to measure on"})
    decoder_layers: int = field(default=2, metadata={"help": "decoder layers of the student; the teacher has 6"})


def demo(arguments: DemoArguments) -> dict[str, Any]:
    """Run the demo. Returns the evaluation report.

    Raises:
        InputError: where the output folder holds something, or eSpeak NG is missing.
    """
    import logging

    from ..errors import InputError
    from ..progress import quiet_transformers
    from ..synthetic_speech.espeak import BREATHING_VARIANTS, HELD_OUT_VARIANTS, TRAINING_VARIANTS
    from .evaluate import EvaluateArguments, evaluate
    from .transcribe import TranscribeArguments, transcribe

    folder = Path(arguments.output)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: choose another --output, or remove it")
    quiet_transformers()
    logging.getLogger("fastwhisper").setLevel(logging.ERROR)
    first = arguments.seed * 1_000_000
    heard = [variant for variant in TRAINING_VARIANTS if variant not in BREATHING_VARIANTS]
    held_out = _speak(HELD_OUT_CLIPS + first, arguments.held_out_clips, HELD_OUT_VARIANTS, "held-out voices", False)
    validation = _speak(VALIDATION_CLIPS + first, 48, heard, "validation", False)
    training = _speak(TRAINING_CLIPS + first, arguments.clips, heard, "training")
    _write_dataset(folder / "held_out", held_out)
    recording = _write_recording(folder / "recording.wav", RECORDING_CLIPS + first, HELD_OUT_VARIANTS)

    student, teacher = folder / "student", folder / "teacher"
    _train(arguments, training, validation, student, teacher)
    report = evaluate(
        EvaluateArguments(
            model=str(student),
            against=str(teacher),
            data=str(folder / "held_out"),
            batch_size=1,
            output=str(student / "evaluation.json"),
        )
    )
    print("\nThe recording, transcribed by the student:")
    options = TranscribeArguments(model=str(student), format=["vtt", "json"], word_timestamps=True, output=str(folder))
    (transcript,) = transcribe([str(recording)], options)
    for segment in transcript.segments:
        print(f"  {segment.start:6.2f} - {segment.end:6.2f} s  {segment.text}")
    _finish(student, report)
    return report


def _speak(
    first_clip: int, count: int, variants: list[str], purpose: str, several: bool = True
) -> "list[SyntheticClip]":
    from tqdm import tqdm

    from ..synthetic_speech.commands import sample_command
    from ..synthetic_speech.espeak import compose_clip

    clips = range(first_clip, first_clip + count)
    return [
        compose_clip(sample_command, clip, variants, WINDOW_SECONDS, several=several)
        for clip in tqdm(clips, desc=f"speaking {purpose}", unit="clip")
    ]


def _write_dataset(folder: Path, clips: "list[SyntheticClip]") -> None:
    """Write clips as FLAC files with a metadata.csv: a folder that every verb reads."""
    import csv

    import soundfile

    from ..modeling.waveforms import SAMPLING_RATE

    folder.mkdir(parents=True)
    with (folder / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "text"])
        for index, clip in enumerate(clips):
            name = f"{index:04d}.flac"
            soundfile.write(folder / name, clip.samples, SAMPLING_RATE)
            writer.writerow([name, clip.text])


def _write_recording(path: Path, first_clip: int, variants: list[str]) -> Path:
    """Write five commands in the voices of five speakers as one recording, longer than the model's window."""
    import numpy as np
    import soundfile

    from ..modeling.waveforms import SAMPLING_RATE

    clips = _speak(first_clip, 5, variants, "a recording", several=False)
    soundfile.write(path, np.concatenate([clip.samples for clip in clips]), SAMPLING_RATE)
    return path


def _train(
    arguments: DemoArguments,
    training: "list[SyntheticClip]",
    validation: "list[SyntheticClip]",
    student_folder: Path,
    teacher_folder: Path,
) -> None:
    """Distil the packaged teacher into a student; both are written as folders."""
    import torch
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from ..data.collator import SpeechCollator
    from ..evaluation.alignment import measure_alignment_heads
    from ..evaluation.training_metrics import training_metrics
    from ..hub_cards.callback import FastWhisperCardCallback
    from ..hub_cards.export import export_folder
    from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration
    from ..trainers.askd_arguments import ASKDTrainingArguments
    from ..trainers.askd_trainer import ASKDTrainer
    from ..trainers.training_bar import show_training_bar

    packaged = Path(__file__).parents[1] / "assets" / "demo_teacher"
    torch.manual_seed(arguments.seed)
    processor = WhisperProcessor.from_pretrained(packaged)
    teacher = WhisperForConditionalGeneration.from_pretrained(packaged, dtype=torch.float32)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, arguments.decoder_layers)
    card = FastWhisperCardCallback(
        teacher,
        datasets=["synthetic household commands (eSpeak NG)"],
        language="en",
        teacher_license="apache-2.0",
        limits=["It knows 269 words in synthetic voices: it proves the pipeline and transcribes nothing else."],
    )
    interval = max(1, arguments.steps // 6)
    trainer = ASKDTrainer(
        model=student,
        teacher_model=teacher,
        args=ASKDTrainingArguments(
            output_dir=str(student_folder),
            max_steps=arguments.steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=24,
            learning_rate=1.5e-3,
            warmup_steps=20,
            lr_scheduler_type="cosine",
            weight_decay=0.01,
            logging_steps=max(1, arguments.steps // 60),
            eval_strategy="steps",
            eval_steps=interval,
            eval_on_start=True,
            predict_with_generate=True,
            generation_max_length=48,
            save_strategy="no",
            remove_unused_columns=False,
            report_to="none",
            seed=arguments.seed,
            use_cpu=True,
        ),
        train_dataset=_rows(training, processor),
        eval_dataset=_rows(validation, processor),
        data_collator=SpeechCollator(
            processor,
            language="en",
            timestamp_probability=0.5,
            max_target_positions=teacher.config.max_target_positions,
            seed=arguments.seed,
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
    export_folder(teacher, processor, teacher_folder)
    card.write(student_folder)


def _rows(clips: "list[SyntheticClip]", processor) -> list[dict[str, Any]]:
    """Rows whose log-mel features are computed once; the collator makes the labels."""
    from ..modeling.waveforms import SAMPLING_RATE

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


def _finish(student: Path, report: dict[str, Any]) -> None:
    """Write the card with what was measured, and say how it went."""
    from ..hub_cards.card import write_card

    card = write_card(student)
    student_rates, teacher_rates = report["models"]
    better = student_rates["wer"] < teacher_rates["wer"]
    print(
        f"\nThe student makes {'fewer' if better else 'no fewer'} errors than its teacher "
        f"({100 * student_rates['wer']:.2f} % against {100 * teacher_rates['wer']:.2f} % WER) "
        f"and is {report['speed_ratio']:.1f} times as fast.\n"
    )
    for what, path in (
        ("checkpoint", student),
        ("model card", card),
        ("curves", student / "curves.png"),
        ("measurements", student / "evaluation.json"),
        ("subtitles", student.parent / "recording.vtt"),
    ):
        print(f"{what:<13}{path}")


def main(argv: Sequence[str]) -> None:
    run_parsed("fastwhisper demo", DESCRIPTION, argv, DemoArguments, demo)
