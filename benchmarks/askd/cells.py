"""One cell: a student trained by the trainer's settings alone, and measured."""

import shutil
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from fastwhisper import ASKDTrainingArguments, distill
from fastwhisper.data.loading import load_speech_dataset
from fastwhisper.errors import InputError
from fastwhisper.evaluation.public_records import make_public
from fastwhisper.transcription.checkpoints import load_checkpoint

from .blind_spot import teacher_with_blind_spot
from .config import Arm, Config, Source, Teacher
from .initial_student import masks, student_folder
from .labels import label_folder
from .lines import Lines
from .measures import Measures
from .place import Place
from .plan import FINAL, Cell, sets_of
from .splits import split
from .teacher_pass import STATES, teacher_pass

CURVE = ("step", "loss", "ce", "teacher_kl", "self_kl", "teacher_weight", "self_weight", "gap", "learning_rate")


class Clock(TrainerCallback):
    """What a training took, and whether it has taken a step: what stops it then is no mistake in the settings."""

    def __init__(self) -> None:
        self.steps, self.seconds, self.cpu_seconds = 0, 0.0, 0.0

    def on_train_begin(self, args, state, control, **kwargs):
        self._begun, self._used = time.perf_counter(), time.process_time()

    def on_step_begin(self, args, state, control, **kwargs):
        self.steps += 1

    def on_train_end(self, args, state, control, **kwargs):
        self.seconds, self.cpu_seconds = time.perf_counter() - self._begun, time.process_time() - self._used


def run_cell(cell: Cell, config: Config, place: Place, measures: Measures, lines: Lines) -> dict[str, Any]:
    """Train and measure a cell; its line of results, with an `error` if the training left the finite numbers."""
    whisper, planted = teacher_with_blind_spot(config, place, cell.teacher, cell.table)
    line: dict[str, Any] = {
        "stage": cell.stage,
        "table": cell.table,
        "teacher": cell.teacher.name,
        "arm": cell.arm,
        "learning_rate": cell.learning_rate,
        "seed": cell.seed,
        "settings": cell.settings(config),
    }
    folder = place.work / "cells" / cell.key(config)
    line.update(train(cell, config, place, lines, whisper, folder))
    if "error" in line:
        shutil.rmtree(folder, ignore_errors=True)
        return line
    student, processor = load_checkpoint(folder, place.device, "float32")
    ear = measures.ear(student, processor, _is_frozen(cell.spec(config)))
    dev = dev_source(config, place)
    sources = {"dev": dev, **(sets_of(config, cell.teacher) if cell.stage == FINAL else {})}
    line["parameters"] = student.num_parameters()
    line["sets"] = {name: measures.on_set(ear, source, planted) for name, source in sources.items()}
    if cell.stage == FINAL:
        line["invented_words_a_minute"] = measures.inventions(ear, config.train.language)
        line["speed"] = measures.speed(student, processor, dev)
        if cell.arm in config.keep_weights:
            _keep(folder, place.work / "weights", f"{cell.table}-{cell.teacher.name}-{cell.arm}-{cell.seed}")
    shutil.rmtree(folder, ignore_errors=True)
    return line


def measure_teacher(config: Config, place: Place, table: str, teacher: Teacher, measures: Measures) -> dict[str, Any]:
    """A teacher as it is, at 30 s; its line of results."""
    whisper, planted = teacher_with_blind_spot(config, place, teacher, table)
    model, processor = load_checkpoint(whisper, place.device, "float32")
    ear = measures.ear(model, processor, frozen=False)
    sources = {"dev": dev_source(config, place), **sets_of(config, teacher)}
    return {
        "teacher": teacher.name,
        "table": table,
        "parameters": model.num_parameters(),
        "sets": {name: measures.on_set(ear, source, planted) for name, source in sources.items()},
        "invented_words_a_minute": measures.inventions(ear, config.train.language),
        "speed": measures.speed(model, processor, sources["dev"]),
    }


def dev_source(config: Config, place: Place) -> Source:
    """The dev rows."""
    return Source(str(split(config, place)[1]), language=config.train.language)


def train(cell: Cell, config: Config, place: Place, lines: Lines, whisper: str, folder: Path) -> dict[str, Any]:
    """Train a cell into a folder; the curve of its loss and what it took, or an `error`."""
    arm, training = cell.spec(config), config.training
    labels = label_folder(config, place, cell.teacher, whisper, str(arm.labels))
    asks_teacher = arm.settings.get("teacher_weight", 0.8) > 0.0 or arm.settings.get("encoder_weight", 0.0) > 0.0
    if asks_teacher:
        teacher_pass(config, place, cell.teacher, whisper)
    own = "" if whisper == place.model(cell.teacher.name) else whisper
    student = student_folder(config, place, cell.teacher, arm, lines, own)
    is_cached = _is_frozen(arm) and not masks(config)
    rows = len(load_speech_dataset(labels))  # type: ignore[arg-type]
    steps = max(1, round(cell.epochs(config) * rows / training.batch_size))
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was killed
    settings: dict[str, Any] = {
        "freeze_encoder": True,
        "true_length": True,
        "true_length_margin": config.initial.margin,
        "full_length_probability": 0.0,
        **arm.settings,
    }
    clock = Clock()
    try:
        report = distill(
            whisper,
            labels,
            ASKDTrainingArguments(
                output_dir=str(folder),
                max_steps=steps,
                per_device_train_batch_size=training.batch_size,
                learning_rate=cell.learning_rate,
                warmup_steps=round(training.warmup * steps),
                weight_decay=training.weight_decay,
                seed=cell.seed,
                logging_steps=max(1, steps // training.log_lines),
                save_strategy="no",
                report_to="none",
                use_cpu=place.device == "cpu",
                bf16=training.bf16,
                **settings,
            ),
            student=str(student),
            language=cell.teacher.language,
            timestamp_probability=0.0,
            prompt_probability=0.0,
            lora_rank=arm.lora_rank,
            teacher_cache=place.work / STATES if asks_teacher else None,
            encoder_cache=place.work / "encoder_states" if is_cached else None,
            callbacks=[clock],
        )
    except InputError as error:
        if not clock.steps:
            raise
        return {"rows": rows, "steps": clock.steps, "error": make_public(str(error))}
    history = report.trainer.state.log_history
    return {
        "rows": rows,
        "steps": steps,
        "seconds_a_row": clock.seconds / (steps * training.batch_size),
        "cpu_seconds_a_row": clock.cpu_seconds / (steps * training.batch_size),
        "curve": [{name: line[name] for name in CURVE if name in line} for line in history if "loss" in line],
    }


def _is_frozen(arm: Arm) -> bool:
    return arm.settings.get("freeze_encoder", True)


def _keep(folder: Path, weights: Path, name: str) -> None:
    kept = weights / name.replace("/", "--")
    shutil.rmtree(kept, ignore_errors=True)
    weights.mkdir(parents=True, exist_ok=True)
    folder.rename(kept)
