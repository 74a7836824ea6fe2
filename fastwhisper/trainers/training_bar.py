"""One line of progress for a training run, instead of a printed dictionary at every log."""

from typing import Any

from tqdm.auto import tqdm
from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

SHOWN = {"loss": "loss", "teacher_weight": "lambda", "self_weight": "alpha", "eval_wer": "WER"}


class TrainingBar(TrainerCallback):
    """A progress bar over the steps, with loss, weights and the last WER."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._values: dict[str, str] = {}

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        if state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if self._bar is not None:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(self, args, state, control, logs: dict[str, Any] | None = None, **kwargs) -> None:
        logs = logs or {}
        for key, name in SHOWN.items():
            if key in logs:
                self._values[name] = f"{logs[key]:.1%}" if name == "WER" else f"{logs[key]:.3g}"
        if self._bar is not None:
            self._bar.set_postfix(self._values)

    def on_train_end(self, args, state, control, **kwargs) -> None:
        if self._bar is not None:
            self._bar.close()


def show_training_bar(trainer: Trainer) -> None:
    """Replace a trainer's callbacks that print every log with a [`TrainingBar`]."""
    trainer.remove_callback(ProgressCallback)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(TrainingBar())
