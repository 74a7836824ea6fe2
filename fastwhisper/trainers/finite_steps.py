"""Training that leaves the finite numbers ends there, with the names of the rows that it was given."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import nn
from transformers import TrainerCallback

from ..data.audio import describe_audio
from ..errors import InputError

ROW_NAMES = "row_names"  # in a batch, beside its tensors
NAMED = 8  # rows that an error names


class NamedRows:
    """A collator that adds to each batch what its rows are called.

    Args:
        collate (`Callable`): makes a dict of a list of rows.
    """

    def __init__(self, collate: Callable[[list[Any]], Mapping[str, Any]]) -> None:
        self._collate = collate

    def __call__(self, rows: list[Any]) -> dict[str, Any]:
        named = [row for row in rows if isinstance(row, Mapping) and row.get("audio") is not None]
        names = [describe_audio(row["audio"]) for row in named]
        return {**self._collate(rows), ROW_NAMES: names}


class FiniteSteps(TrainerCallback):
    r"""Stops before the optimizer takes a step on a loss or a gradient that is NaN or infinite.

    Under a gradient scaler a gradient may overflow: it skips that step and lowers its scale. Only a scale below 1,
    where the gradient overflows by itself, ends the training.

    Args:
        accelerator (`Accelerator`): that of the Trainer.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._losses: list[torch.Tensor] = []
        self._rows: list[list[str]] = []

    def note(self, loss: torch.Tensor, rows: list[str]) -> None:
        """Take the loss of a micro-batch, and the names of its rows."""
        self._losses.append(loss.detach())
        self._rows.append(rows)

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self._losses, self._rows = [], []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs) -> None:
        """Raise on every process where the loss or the gradient of any of them is not finite.

        Raises:
            InputError: names the step and the rows.
        """
        losses = torch.stack(self._losses).float().isfinite()
        finite = torch.stack([losses.all(), self._gradient_is_finite(model)]).float()
        finite_loss, finite_gradient = (self._accelerator.reduce(finite) == self._accelerator.num_processes).tolist()
        if finite_loss and finite_gradient:
            return
        what = "gradient" if finite_loss else "loss"
        blamed = zip(losses.tolist(), self._rows, strict=True)
        rows = [name for is_finite, names in blamed if finite_loss or not is_finite for name in names]
        raise InputError(self._message(f"the {what} of step {state.global_step + 1} is not finite", rows, state))

    def check_weights(self, model: nn.Module, state) -> None:
        """Check what would be saved, on every process.

        Raises:
            InputError: names the step and the rows that it was given.
        """
        if not _all_finite([weight.detach() for weight in model.parameters()]):
            rows = [name for names in self._rows for name in names]
            raise InputError(self._message(f"the weights after step {state.global_step} are not finite", rows, state))

    def _gradient_is_finite(self, model: nn.Module) -> torch.Tensor:
        scaler = self._accelerator.scaler
        device = self._accelerator.device
        if scaler is not None:
            return torch.tensor(scaler.get_scale() >= 1.0, device=device)
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        return torch.tensor(_all_finite(gradients), device=device)

    def _message(self, what: str, rows: list[str], state) -> str:
        rows = list(dict.fromkeys(gather_object(rows)))
        more = f" and {len(rows) - NAMED} more" if len(rows) > NAMED else ""
        given = f"; its rows: {', '.join(rows[:NAMED])}{more}" if rows else ""
        return (
            f"{what}{given}. Nothing of it was saved, earlier checkpoints are whole. Look at these rows, or lower "
            "the learning rate"
        )


def _all_finite(tensors: list[torch.Tensor]) -> bool:
    if not tensors:
        return True
    # A sum of squares in float64 cannot overflow, and one NaN or infinity remains in it.
    norms = torch.stack([norm.double() for norm in torch._foreach_norm([tensor.float() for tensor in tensors])])
    return bool(norms.isfinite().all())
