"""What the demo's teacher reaches if it is fine-tuned on the clips that the demo trains its student on.

    python benchmarks/demo_finetuned.py --output benchmarks/results

All its layers are trained, for as many steps with the same settings, on cross-entropy alone and in whole windows, as
it was trained before. It is then measured on the held-out clips of the demo.
"""

import argparse
import json
import tempfile
from pathlib import Path

import torch
from run_record import run_record
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from fastwhisper import FastWhisperForConditionalGeneration
from fastwhisper.demo.run import HELD_OUT_CLIPS, TRAINING_CLIPS
from fastwhisper.demo.speech import speak, write_dataset
from fastwhisper.demo.training import PACKAGED_TEACHER, demo_arguments, demo_collator, rows_of
from fastwhisper.evaluation.evaluate import evaluate
from fastwhisper.hub_cards.export import export_folder
from fastwhisper.progress import quiet_transformers
from fastwhisper.synthetic_speech.hotel import HELD_OUT_VARIANTS, TRAINING_VARIANTS
from fastwhisper.trainers.askd_trainer import ASKDTrainer
from fastwhisper.trainers.training_bar import show_training_bar


def fine_tune(folder: Path, clips: int, steps: int, seed: int) -> None:
    """Train all of the teacher's layers, and write it into a folder."""
    processor = WhisperProcessor.from_pretrained(PACKAGED_TEACHER)
    teacher = WhisperForConditionalGeneration.from_pretrained(PACKAGED_TEACHER, dtype=torch.float32)
    model = FastWhisperForConditionalGeneration.from_teacher(teacher, teacher.config.decoder_layers)
    training = speak(TRAINING_CLIPS + seed * 1_000_000, clips, TRAINING_VARIANTS, "training")
    alone = {"schedule": "linear", "teacher_weight": 0.0, "self_weight": 0.0}
    windows = {"true_length": False, "full_length_probability": 1.0, "freeze_encoder": False}
    trainer = ASKDTrainer(
        model=model,
        args=demo_arguments(folder, steps, seed, eval_strategy="no", eval_on_start=False, **alone, **windows),
        train_dataset=rows_of(training, processor),
        data_collator=demo_collator(processor, model.config.max_target_positions, seed),
        processing_class=processor,
    )
    show_training_bar(trainer)
    trainer.train()
    export_folder(model, processor, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder for demo_finetuned.json")
    for name, default in (("steps", 900), ("clips", 2400), ("held_out_clips", 160), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=default, help="as of fastwhisper demo")
    args = parser.parse_args()
    quiet_transformers()
    torch.manual_seed(args.seed)
    with tempfile.TemporaryDirectory() as scratch:
        tuned, held_out = Path(scratch, "fine-tuned teacher"), Path(scratch, "held_out")
        first = HELD_OUT_CLIPS + args.seed * 1_000_000
        write_dataset(held_out, speak(first, args.held_out_clips, HELD_OUT_VARIANTS, "held-out", several=False))
        fine_tune(tuned, args.clips, args.steps, args.seed)
        report = evaluate(
            tuned, held_out, against=PACKAGED_TEACHER, batch_size=1, device="cpu", dtype="float32", show_progress=False
        )
    settings = {name: value for name, value in vars(args).items() if name != "output"}
    record = run_record(settings) | {"evaluation": report}
    args.output.mkdir(parents=True, exist_ok=True)
    (args.output / "demo_finetuned.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    for model in report["models"]:
        print(f"{model['name']}: {model['wer']:.2%} WER, {model['seconds']:.2f} s")


if __name__ == "__main__":
    main()
