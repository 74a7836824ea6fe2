"""The parts of the loss between two log lines."""

from collections.abc import Callable

import torch

from .askd_loss import LossSums, LossWeights

PARTS = ("ce", "teacher_kl", "self_kl")


class LossLog:
    """Averages the loss parts of the optimiser steps since the last log line.

    A part is averaged with its own weight over the steps, so that mean weights and parts recombine to the mean loss
    even if the weights change from step to step.

    Args:
        device (`torch.device`): where the sums are kept, so that no step waits for a copy.
    """

    def __init__(self, device: torch.device) -> None:
        self._step = torch.zeros(4, device=device)
        self._reset()

    def _reset(self) -> None:
        self._weighted = torch.zeros_like(self._step[:3])
        self._plain = torch.zeros_like(self._weighted)
        self._weights = [0.0, 0.0, 0.0]
        self._steps = 0

    def add(self, sums: LossSums, tokens: torch.Tensor | int) -> None:
        """Add a micro-batch of a step with `tokens` target tokens in all its micro-batches."""
        self._step += torch.stack([sums.ce, sums.teacher_kl, sums.self_kl, sums.teacher_ce]).to(self._step) / tokens

    def end_step(self, weights: LossWeights) -> torch.Tensor:
        """Close a step. Returns its `ce`, `teacher_kl`, `self_kl`, `teacher_ce` per token, for this process only."""
        shares = (1.0 - weights.teacher_weight - weights.self_weight, weights.teacher_weight, weights.self_weight)
        step, self._step = self._step, torch.zeros_like(self._step)
        self._weighted += step[:3] * torch.tensor(shares, device=step.device)
        self._plain += step[:3]
        self._weights = [total + share for total, share in zip(self._weights, shares, strict=True)]
        self._steps += 1
        return step

    def take(self, across_processes: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """The values of a log line, after which counting starts anew; empty if no step was closed."""
        if self._steps == 0:
            return {}
        weighted = across_processes(self._weighted).tolist()
        plain = across_processes(self._plain).tolist()
        values = {
            part: weighted[index] / self._weights[index] if self._weights[index] > 0.0 else plain[index] / self._steps
            for index, part in enumerate(PARTS)
        }
        values["teacher_weight"] = self._weights[1] / self._steps
        values["self_weight"] = self._weights[2] / self._steps
        self._reset()
        return values
