"""Seconds and memory of ASKD training steps on a real Whisper shape, as `fastwhisper distill` runs them.

    python benchmarks/training_speed.py --shape large-v3 --device cuda --bf16 --output benchmarks/results

The weights are random and the rows are noise of 30 s, in memory: reading and decoding audio is not in the time. The
encoder is frozen and shared. Steps are timed in three phases of one run: teacher (its weight above 0), self-teacher,
and cross-entropy alone. The first steps of a phase are not counted.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch
from run_record import run_record
from transformers import TrainerCallback, WhisperConfig, WhisperForConditionalGeneration

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration

SHAPES = {
    "tiny": {"d_model": 384, "layers": 4, "heads": 6, "mel": 80, "vocabulary": 51865},
    "base": {"d_model": 512, "layers": 6, "heads": 8, "mel": 80, "vocabulary": 51865},
    "small": {"d_model": 768, "layers": 12, "heads": 12, "mel": 80, "vocabulary": 51865},
    "medium": {"d_model": 1024, "layers": 24, "heads": 16, "mel": 80, "vocabulary": 51865},
    "large-v3": {"d_model": 1280, "layers": 32, "heads": 20, "mel": 128, "vocabulary": 51866},
}
PHASES = {
    "teacher": {"schedule": "constant"},
    "self-teacher": {"teacher_weight": 0.0, "mode": "joint", "self_weight": 0.5},
    "cross-entropy": {"teacher_weight": 0.0, "self_weight": 0.0},
}
UNCOUNTED_STEPS = 3


class StepClock(TrainerCallback):
    """Seconds of each optimiser step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: list[float] = []

    def _now(self) -> float:
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def on_step_begin(self, args, state, control, **kwargs):
        self._begun = self._now()

    def on_step_end(self, args, state, control, **kwargs):
        self.seconds.append(self._now() - self._begun)


def build(shape: str) -> WhisperForConditionalGeneration:
    sizes = SHAPES[shape]
    return WhisperForConditionalGeneration(
        WhisperConfig(
            d_model=sizes["d_model"],
            encoder_layers=sizes["layers"],
            decoder_layers=sizes["layers"],
            encoder_attention_heads=sizes["heads"],
            decoder_attention_heads=sizes["heads"],
            encoder_ffn_dim=4 * sizes["d_model"],
            decoder_ffn_dim=4 * sizes["d_model"],
            num_mel_bins=sizes["mel"],
            vocab_size=sizes["vocabulary"],
            pad_token_id=50257,
        )
    )


def rows(shape: str, count: int, tokens: int) -> list[dict[str, torch.Tensor]]:
    mel = SHAPES[shape]["mel"]
    return [
        {"input_features": torch.randn(mel, 3000), "labels": torch.randint(50_000, (tokens,))} for _ in range(count)
    ]


def collate(batch: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: torch.stack([row[name] for row in batch]) for name in batch[0]}


def measure(args: argparse.Namespace, phase: str, teacher, student, data) -> dict[str, float]:
    clock = StepClock(args.device)
    if args.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with tempfile.TemporaryDirectory() as folder:
        trainer = ASKDTrainer(
            model=student,
            teacher_model=teacher,
            args=ASKDTrainingArguments(
                output_dir=folder,
                max_steps=args.steps + UNCOUNTED_STEPS,
                per_device_train_batch_size=args.batch_size,
                bf16=args.bf16,
                use_cpu=args.device == "cpu",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                remove_unused_columns=False,
                seed=args.seed,
                **PHASES[phase],
            ),
            train_dataset=data,
            data_collator=collate,
            callbacks=[clock],
        )
        trainer.train()
    seconds = statistics.median(clock.seconds[UNCOUNTED_STEPS:])
    measured = {"seconds_a_step": seconds, "rows_a_second": args.batch_size / seconds}
    if args.device == "cuda":
        measured["peak_memory_bytes"] = torch.cuda.max_memory_allocated()
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=SHAPES, default="base")
    parser.add_argument("--decoder-layers", type=int, default=4)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16, teacher held in it")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=100, help="target tokens of a row")
    parser.add_argument("--steps", type=int, default=20, help="counted steps of a phase")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for training_speed_SHAPE.json")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    teacher = build(args.shape)
    student = FastWhisperForConditionalGeneration.from_teacher(teacher, args.decoder_layers)
    if args.bf16:
        teacher.to(torch.bfloat16)
    data = rows(args.shape, 4 * args.batch_size, args.tokens)
    report = {
        **run_record({**vars(args), "output": None}, args.device),
        "parameters": {"teacher": teacher.num_parameters(), "student": student.num_parameters()},
        "phases": {},
    }
    for phase in PHASES:
        report["phases"][phase] = measured = measure(args, phase, teacher, student, data)
        print(phase, json.dumps(measured))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / f"training_speed_{args.shape}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
