"""A training step of ASKD against a naive one: time, and peak memory of the loss part, on whisper-tiny's shape.

    python benchmarks/askd_step.py --output benchmarks/results/askd_step.json

Naive: teacher and student each run their own encoder, keep full-size float32 logits of every position and take
cross-entropy and divergence of the whole at once. Both train the same student (2 of 4 decoder layers, 51,865 tokens,
encoder frozen) with lambda = 0.8 on the same batch, step by step in turn. The loss part goes from the decoders' last
hidden states to the gradients of the student's hidden states and output layer.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from run_record import run_record
from torch.nn import functional
from tqdm import tqdm
from transformers import WhisperConfig, WhisperForConditionalGeneration

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.evaluation.measurement import resident_growth
from fastwhisper.trainers.askd_loss import LossWeights, Predictions, askd_loss
from fastwhisper.trainers.askd_teachers import predict

TEACHER_WEIGHT = 0.8


def naive_loss(logits, teacher_logits, labels):
    targets = labels != -100
    ce = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    student_log, teacher_log = functional.log_softmax(logits, -1), functional.log_softmax(teacher_logits, -1)
    kl = functional.kl_div(student_log, teacher_log, log_target=True, reduction="none").sum(-1)
    return ((1 - TEACHER_WEIGHT) * ce + TEACHER_WEIGHT * (kl * targets).sum()) / targets.sum()


def naive_step(student, teacher, features, ids, labels):
    with torch.no_grad():
        teacher_logits = teacher(features, decoder_input_ids=ids, use_cache=False).logits
    logits = student(features, decoder_input_ids=ids, use_cache=False).logits
    naive_loss(logits, teacher_logits, labels).backward()


def chunked_loss(student, teacher, labels):
    return askd_loss(student, labels, LossWeights(TEACHER_WEIGHT, 0.0), teacher).loss / labels.numel()


def askd_step(student, teacher, features, ids, labels):
    targets = labels != -100
    with torch.no_grad():
        encoded = student.model.encoder(features).last_hidden_state
        inputs = {"encoder_outputs": (encoded,), "decoder_input_ids": ids}
        its = predict(teacher, teacher, inputs, targets)
    chunked_loss(predict(student, student, inputs, targets), its, labels[targets]).backward()


def loss_parts(student, teacher, features, ids, labels):
    """Two functions that run the loss parts alone, naive and chunked, from the same hidden states."""
    targets, everywhere = labels != -100, torch.ones_like(labels, dtype=torch.bool)
    with torch.no_grad():
        inputs = {"encoder_outputs": (student.model.encoder(features).last_hidden_state,), "decoder_input_ids": ids}
        mine, its = (predict(model, model, inputs, everywhere) for model in (student, teacher))
    rows = targets.flatten()

    def naive():
        hidden = mine.hidden_states.clone().requires_grad_()
        logits = (hidden @ mine.projection.T).view(*labels.shape, -1)
        with torch.no_grad():
            teacher_logits = (its.hidden_states @ its.projection.T).view(*labels.shape, -1)
        naive_loss(logits, teacher_logits, labels).backward()

    def chunked():
        hidden = mine.hidden_states[rows].clone().requires_grad_()
        its_rows = Predictions(its.hidden_states[rows], its.projection.detach())
        chunked_loss(Predictions(hidden, mine.projection), its_rows, labels[targets]).backward()

    return naive, chunked


def seconds(work, model):
    started = time.perf_counter()
    work()
    elapsed = time.perf_counter() - started
    model.zero_grad()
    return elapsed


def growth(work, model):
    model.zero_grad()
    size = resident_growth(work)
    model.zero_grad()
    return size


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=96, help="positions of the longest row; rows have half to all")
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    config = WhisperConfig(d_model=384, encoder_layers=4, decoder_layers=4, vocab_size=51865, pad_token_id=50257)
    teacher = WhisperForConditionalGeneration(config).eval().requires_grad_(False)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2).requires_grad_(True)
    student.freeze_encoder()
    ids = torch.randint(50000, (args.batch_size, args.tokens))
    labels = torch.randint(50000, (args.batch_size, args.tokens))
    for row in range(args.batch_size):
        labels[row, args.tokens // 2 + row * args.tokens // (2 * args.batch_size) :] = -100
    batch = torch.randn(args.batch_size, 80, 3000), ids, labels

    steps = {
        "naive": lambda: naive_step(student, teacher, *batch),
        "askd": lambda: askd_step(student, teacher, *batch),
    }
    losses = dict(zip(("naive", "askd"), loss_parts(student, teacher, *batch), strict=True))
    times = {"naive": [], "askd": []}
    loss_times = {"naive": [], "askd": []}
    for step in tqdm(range(args.steps + 1), desc="steps"):
        for name in times:
            measured = seconds(steps[name], student), seconds(losses[name], student)
            if step > 0:  # the first is a warm-up
                times[name].append(measured[0])
                loss_times[name].append(measured[1])
    memory = {name: growth(work, student) for name, work in losses.items()}
    step_memory = {name: growth(work, student) for name, work in steps.items()}
    report = {
        **run_record({**vars(args), "output": None, "target_tokens": int((labels != -100).sum())}),
        "step_seconds": {name: statistics.median(values) for name, values in times.items()},
        "loss_seconds": {name: statistics.median(values) for name, values in loss_times.items()},
        "loss_peak_bytes": memory,
        "step_peak_bytes": step_memory,
    }  # fmt: skip
    for what in ("step_seconds", "loss_seconds", "loss_peak_bytes", "step_peak_bytes"):
        report[f"{what}_ratio"] = report[what]["askd"] / report[what]["naive"]
        print(f"{what:<18} naive {report[what]['naive']:.4g}  askd {report[what]['askd']:.4g}  "
              f"ratio {report[f'{what}_ratio']:.2f}")  # fmt: skip
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
