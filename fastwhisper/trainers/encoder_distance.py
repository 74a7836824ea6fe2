"""How far the student's encoder is from the teacher's over the frames of speech, and its own learning rate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

AUDIO_FRAMES = "audio_frames"  # in a batch: mel frames of audio of each row


def speech_positions(audio_frames: torch.Tensor) -> torch.Tensor:
    """Encoder positions that hold audio, `(batch,)`: two mel frames each."""
    return (audio_frames + 1) // 2


def squared_distance(student: torch.Tensor, teacher: torch.Tensor, audio_frames: torch.Tensor) -> torch.Tensor:
    """Squared difference of encoder states, mean over the hidden size, summed over the positions of speech.

    Args:
        student (`torch.Tensor`): `(batch, positions, hidden)`.
        teacher (`torch.Tensor`): `(batch, positions, hidden)`, of a window or up to the longest speech; constant.
        audio_frames (`torch.Tensor`): `(batch,)`, mel frames of audio.
    """
    positions = min(student.shape[1], teacher.shape[1])
    places = torch.arange(positions, device=student.device)
    speech = places < speech_positions(audio_frames.to(student.device))[:, None]
    precision = torch.promote_types(student.dtype, torch.float32)
    mine, its = (states[:, :positions][speech].to(precision) for states in (student, teacher))
    return (mine - its).square().mean(dim=-1).sum()


class EncoderDistance:
    """The term of the loss, normalised by the positions of speech in the whole batch of a step, and its log.

    Args:
        weight (`float`): of the mean squared distance in the loss.
        device (`torch.device`): where the sum for the log is kept.
    """

    def __init__(self, weight: float, device: torch.device) -> None:
        self.weight = weight
        self._logged = torch.zeros((), device=device)
        self._steps = 0
        self._positions: torch.Tensor | None = None
        self._mean = torch.zeros((), device=device)

    def begin_step(self, batches: Sequence[Mapping[str, Any]], total: Callable[[torch.Tensor], torch.Tensor]) -> None:
        """Count the positions of a step.

        Args:
            batches (`Sequence[Mapping]`): all micro-batches of this process.
            total (`Callable`): the sum over the processes, where they share one normalisation.
        """
        positions = sum(speech_positions(batch[AUDIO_FRAMES]).sum() for batch in batches)
        self._positions = total(torch.as_tensor(positions, device=self._logged.device))

    def measure(self, student: torch.Tensor, teacher: torch.Tensor, audio_frames: torch.Tensor) -> None:
        """Take the encoder states of a micro-batch; arguments as for `squared_distance`.

        Outside of a step they are normalised by their own positions.
        """
        positions = self._positions if self._positions is not None else speech_positions(audio_frames).sum()
        self._mean = squared_distance(student, teacher, audio_frames) / positions.to(student.device)

    def term(self) -> torch.Tensor:
        """What the micro-batch measured last adds to the loss."""
        self._logged += self._mean.detach()
        return self.weight * self._mean

    def end_step(self) -> None:
        """Close a step."""
        self._steps += 1
        self._positions = None

    def take(self, across_processes: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """`encoder_mse`, the mean over the steps since the last log line; empty if no step was closed."""
        if self._steps == 0:
            return {}
        value = across_processes(self._logged).item() / self._steps
        self._logged = torch.zeros_like(self._logged)
        self._steps = 0
        return {"encoder_mse": value}


def give_encoder_its_rate(optimizer: Optimizer, encoder: nn.Module, learning_rate: float) -> None:
    """Move the encoder's weights into parameter groups of their own, which are otherwise as those that they leave."""
    encoder_weights = {id(weight) for weight in encoder.parameters()}
    for group in list(optimizer.param_groups):
        mine = [weight for weight in group["params"] if id(weight) in encoder_weights]
        if mine:
            group["params"] = [weight for weight in group["params"] if id(weight) not in encoder_weights]
            optimizer.add_param_group({**group, "params": mine, "lr": learning_rate})
