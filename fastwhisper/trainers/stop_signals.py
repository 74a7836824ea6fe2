"""A training that is told to stop ends at a step, with a checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate.utils import gather
from transformers import TrainerCallback

from ..errors import Stopped

SAID = b"\nfastwhisper: stopping after this step, with a checkpoint; once more stops at once\n"


class StopAtSignal(TrainerCallback):
    """Ends a training at a step, with a checkpoint, when any of its processes gets SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self._received = 0
        self._agreed = 0
        self._saved_step: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while a Trainer trains; a second one acts as ever. Outside the main thread nothing changes.

        Raises:
            Stopped: after a training that was told to stop; says how to go on.
        """
        if threading.current_thread() is not threading.main_thread():  # where Python takes no handlers
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def put_back() -> None:
            for number, handler in before.items():
                signal.signal(number, handler)

        def receive(number: int, frame: object) -> None:
            self._received = number
            put_back()
            if os.environ.get("RANK", "0") == "0":
                os.write(2, SAID)  # print may be what was interrupted

        for number in before:
            signal.signal(number, receive)
        try:
            yield
        finally:
            put_back()
        if self._agreed:
            name = signal.Signals(self._agreed).name
            raise Stopped(
                f"stopped by {name} after step {self._saved_step}, with a checkpoint: go on with the same command and "
                "--resume_from_checkpoint last",
                self._agreed,
            )

    def on_step_end(self, args, state, control, **kwargs) -> None:
        received = self._received
        if args.world_size > 1:
            # One of them may get it earlier than the others, or alone.
            received = int(gather(torch.tensor([received], device=args.device)).max())
        if received:
            self._agreed = received
            control.should_training_stop = True

    def on_save(self, args, state, control, **kwargs) -> None:
        self._saved_step = state.global_step

    def on_epoch_end(self, args, state, control, **kwargs) -> None:
        """Save, unless it was done; measure only what a run that is not stopped would measure here."""
        if not self._agreed:
            return
        if state.epoch % 1.0:
            control.should_evaluate = False
        control.should_save = control.should_evaluate or self._saved_step != state.global_step
