"""A small ASKD training as a program, for the tests that need processes: `python -m tests.trainers.askd_run JSON`.

Writes the log lines and the weights into `folder`; with `die_at` it is killed after that step, as by a lost machine;
the row `spoiled_row` has a NaN. With `seconds` the rows are noise so long, and the student is trained at true length.
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
from .true_length_runs import WINDOW_SECONDS, true_length_trainer


class Death(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os._exit(17)


def whole_windows(tokenizer, args, rows, dropout, spoiled_row, callbacks):
    teacher = tiny_whisper(tokenizer, dropout=dropout)
    dataset = make_rows(rows, len(tokenizer))
    if spoiled_row is not None:
        dataset = [{**row, "audio": {"path": f"row-{index}.wav"}} for index, row in enumerate(dataset)]
        dataset[spoiled_row]["input_features"][3, 50] = torch.nan
    return ASKDTrainer(
        model=FastWhisperForConditionalGeneration.from_teacher(teacher, decoder_layers=2),
        teacher_model=teacher,
        args=ASKDTrainingArguments(**args),
        train_dataset=dataset,
        data_collator=collate,
        callbacks=callbacks,
    )


def main(folder, rows=8, seconds=None, die_at=None, resume=False, dropout=0.0, spoiled_row=None, **settings):
    torch.set_num_threads(1)
    folder = Path(folder)
    tokenizer = build_demo_tokenizer()
    output = str(folder / "run")
    args = {
        "logging_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True, "learning_rate": 1e-3,
        "seed": 0, **settings,
    }  # fmt: skip
    callbacks = [Death(die_at)] if die_at else None
    if seconds is None:
        args["output_dir"] = output
        trainer = whole_windows(tokenizer, args, rows, dropout, spoiled_row, callbacks)
    else:
        teacher = tiny_whisper(tokenizer, seconds=WINDOW_SECONDS, dropout=dropout)
        trainer = true_length_trainer(tokenizer, output, seconds, teacher=teacher, callbacks=callbacks, **args)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(output) if resume else None)
    if trainer.is_world_process_zero():
        lines = [line for line in trainer.state.log_history if "loss" in line]
        (folder / "log.json").write_text(json.dumps(lines))
        save_file(
            {name: p.detach().contiguous() for name, p in trainer.model.named_parameters()}, folder / "w.safetensors"
        )
    trainer.accelerator.end_training()


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
