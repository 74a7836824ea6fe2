"""A small ASKD training as a program, for the tests that need processes: `python -m tests.trainers.askd_run JSON`.

Writes the log lines and the weights into `folder`; with `die_at` it is killed after that step, as by a lost machine;
the row `spoiled_row` has a NaN.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import TrainerCallback
from transformers.trainer_utils import get_last_checkpoint

from fastwhisper import ASKDTrainer, ASKDTrainingArguments, FastWhisperForConditionalGeneration
from fastwhisper.synthetic_speech.demo_tokenizer import build_demo_tokenizer

from ..tiny_models import tiny_whisper
from .conftest import collate, make_rows


class Death(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os._exit(17)


def main(folder, rows=8, die_at=None, resume=False, dropout=0.0, spoiled_row=None, **settings):
    torch.set_num_threads(1)
    folder = Path(folder)
    tokenizer = build_demo_tokenizer()
    teacher = tiny_whisper(tokenizer, dropout=dropout)
    args = ASKDTrainingArguments(
        output_dir=str(folder / "run"), logging_steps=1, report_to="none", use_cpu=True, disable_tqdm=True,
        learning_rate=1e-3, seed=0, **settings,
    )  # fmt: skip
    dataset = make_rows(rows, len(tokenizer))
    if spoiled_row is not None:
        dataset = [{**row, "audio": {"path": f"row-{index}.wav"}} for index, row in enumerate(dataset)]
        dataset[spoiled_row]["input_features"][3, 50] = torch.nan
    trainer = ASKDTrainer(
        model=FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2),
        teacher_model=teacher,
        args=args,
        train_dataset=dataset,
        data_collator=collate,
        callbacks=[Death(die_at)] if die_at else None,
    )
    trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir) if resume else None)
    if trainer.is_world_process_zero():
        lines = [line for line in trainer.state.log_history if "loss" in line]
        (folder / "log.json").write_text(json.dumps(lines))
        save_file(
            {name: p.detach().contiguous() for name, p in trainer.model.named_parameters()}, folder / "w.safetensors"
        )
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
