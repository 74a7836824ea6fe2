"""What a row costs on this machine, measured before a training is planned."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers import WhisperForConditionalGeneration

from ..data.collator import SpeechCollator
from ..modeling.modeling_fastwhisper import FastWhisperForConditionalGeneration

# A precision that rounds to 8 bits is taken only where it saves real time.
WORTHWHILE = 0.75


@dataclass(frozen=True)
class RowCosts:
    """Seconds of a row on the device that trains.

    Args:
        teacher (`float`): the teacher's forward pass on a whole window; needed once a row.
        student (`float`): the student's forward and backward pass at the true length; needed in every epoch.
        bfloat16 (`bool`): whether both are those in bfloat16, which is much quicker here.
    """

    teacher: float
    student: float
    bfloat16: bool


def row_costs(
    teacher: WhisperForConditionalGeneration,
    student: FastWhisperForConditionalGeneration,
    collate: SpeechCollator,
    rows: Sequence[Mapping[str, Any]],
    device: torch.device,
) -> RowCosts:
    """Measure both models on a batch of rows, in float32 and bfloat16; the student's gradients are dropped.

    Args:
        teacher, student (`WhisperForConditionalGeneration`): as they will be trained with.
        collate (`SpeechCollator`): whose batches are whole windows.
        rows (`Sequence[Mapping]`): a batch of ordinary rows.
        device (`torch.device`): the models are moved there.
    """
    short = replace(collate, true_length=True, full_length_probability=0.0)(rows)
    whole = collate(rows[:1])
    contexts = short.pop("context_frames")
    short.pop("audio_frames")
    batches = [{name: tensor.to(device) for name, tensor in batch.items()} for batch in (short, whole)]
    teacher.to(device).eval()  # type: ignore[arg-type]
    student.to(device).train()  # type: ignore[arg-type]

    def ask_teacher() -> None:
        with torch.no_grad():
            teacher(**batches[1])

    def train_student() -> None:
        student(**batches[0], context_frames=contexts).loss.backward()
        student.zero_grad()

    costs = {}
    for bfloat16 in (False, True):
        with torch.autocast(device.type, torch.bfloat16) if bfloat16 else nullcontext():
            costs[bfloat16] = RowCosts(
                _seconds(ask_teacher, device), _seconds(train_student, device) / len(rows), bfloat16
            )
    quick, exact = costs[True], costs[False]
    return quick if quick.teacher + quick.student < WORTHWHILE * (exact.teacher + exact.student) else exact


def _seconds(work: Callable[[], None], device: torch.device) -> float:
    """Of the second run: the first one loads what it needs."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
    return seconds
