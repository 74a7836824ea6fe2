"""What true length and the caches save, on a real Whisper and real clips: training steps, the encoder, transcription.

    python benchmarks/true_length.py --teacher models/whisper-base --data speechocean762 --output benchmarks/results

DATA has the folders train and test. All figures of a run are taken on the same clips, one after another, and compared
with each other. Training figures are seconds a row in the second epoch; the first fills the caches. `naive` is a step
as it was: teacher and student each encode 30 s.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from run_record import run_record
from training_speed import StepClock
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import ASKDTrainingArguments, FastWhisperForConditionalGeneration, distill
from fastwhisper.data.audio import load_audio
from fastwhisper.data.loading import load_speech_dataset

DECODER_LAYERS = 2
CLIP_SECONDS = (3.0, 5.0)


def seconds_a_row(args: argparse.Namespace, **options: Any) -> float:
    """Median over the steps of the second epoch."""
    distill_options = {
        name: options.pop(name) for name in ("teacher_cache", "encoder_cache", "student") if name in options
    }
    clock = StepClock("cpu")
    steps = args.rows // args.batch_size
    with tempfile.TemporaryDirectory() as folder:
        distill(
            str(args.teacher),
            args.data / "train",
            ASKDTrainingArguments(
                output_dir=folder,
                num_train_epochs=2,
                per_device_train_batch_size=args.batch_size,
                dataloader_drop_last=True,
                use_cpu=True,
                schedule="constant",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                logging_strategy="no",
                seed=args.seed,
                **options,
            ),
            decoder_layers=None if "student" in distill_options else DECODER_LAYERS,
            language=args.language,
            limit=args.rows,
            callbacks=[clock],
            **distill_options,
        )
    return statistics.median(clock.seconds[steps:]) / args.batch_size


def training(args: argparse.Namespace) -> dict[str, float]:
    """Seconds a row in the second epoch of each way to train."""
    found = {"naive": seconds_a_row(args, freeze_encoder=False)}
    with tempfile.TemporaryDirectory() as folder:
        caches = {"teacher_cache": f"{folder}/teacher"}
        options = {"true_length": True, "full_length_probability": 0.0, "freeze_encoder": False}
        found["true length"] = seconds_a_row(args, **options, **caches)
        student = FastWhisperForConditionalGeneration.from_teacher(str(args.teacher), DECODER_LAYERS)
        student.config.true_length = True
        student.save_pretrained(f"{folder}/student")
        WhisperProcessor.from_pretrained(args.teacher).save_pretrained(f"{folder}/student")
        caches.update(encoder_cache=f"{folder}/encoder", student=f"{folder}/student")
        options["freeze_encoder"] = True
        found["encoder frozen and cached"] = seconds_a_row(args, **options, **caches)
    return found


def median_seconds(run: Callable[[Any], object], clips: list[Any], repeats: int) -> float:
    """Median over the clips of the best of some runs, after one that is not counted."""
    run(clips[0])
    return statistics.median(min(_seconds(run, clip) for _ in range(repeats)) for clip in clips)


def _seconds(run: Callable[[Any], object], clip: Any) -> float:
    begun = time.perf_counter()
    run(clip)
    return time.perf_counter() - begun


@torch.no_grad()
def inference(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the encoder and of a whole transcription, batch 1, teacher against student."""
    processor = WhisperProcessor.from_pretrained(args.teacher)
    teacher = WhisperForConditionalGeneration.from_pretrained(args.teacher).eval()
    student = FastWhisperForConditionalGeneration.from_pretrained(args.student).eval()
    rows = load_speech_dataset(args.data / "test")
    samples = (load_audio(row["audio"]) for row in rows)
    low, high = (16_000 * seconds for seconds in CLIP_SECONDS)
    clips = [clip for clip in samples if low <= len(clip) <= high][: args.clips]
    prompt = {"language": args.language, "task": "transcribe"} if args.language else {}

    def features(clip):
        return processor(clip, sampling_rate=16_000, return_tensors="pt", return_attention_mask=True)

    def transcribe(model):
        def run(clip):
            return model.generate(**features(clip), **prompt)

        return run

    short = [clip[: 3 * 16_000] for clip in clips]
    found: dict[str, Any] = {"clips": len(clips)}
    for name, model, true_length in (
        ("teacher", teacher, False),
        ("student at 30 s", student, False),
        ("student at true length", student, True),
    ):
        student.config.true_length = true_length
        found[name] = {
            "encoder, 3 s": median_seconds(
                lambda clip, model=model: model.model.encoder(features(clip).input_features), short, args.repeats
            ),
            "transcription": median_seconds(transcribe(model), clips, args.repeats),
        }
    found["features"] = median_seconds(features, clips, args.repeats)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a Whisper")
    parser.add_argument("--data", type=Path, required=True, help="folder with train and test")
    parser.add_argument("--student", type=Path, required=True, help="folder of a student trained at true length")
    parser.add_argument("--language", help="of a multilingual teacher")
    parser.add_argument("--rows", type=int, default=48, help="rows to train on")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--clips", type=int, default=20, help="clips of 3 to 5 s to transcribe")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="folder for true_length_MODEL.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    report = {**run_record({**settings, "output": None}), "inference": inference(args), "training": training(args)}
    print(json.dumps({name: report[name] for name in ("inference", "training")}, indent=1))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        (args.output / f"true_length_{args.teacher.name}.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
