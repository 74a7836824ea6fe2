"""The ASKD loss from hidden states, in chunks of tokens: a matrix of all tokens by the vocabulary is never built.

The derivative with respect to a chunk's logits has a closed form, so the chunk's gradients are taken in the forward
pass, while its rows are in memory, and nothing is computed twice:

    dL/dz = (1 - lambda - alpha) (S - onehot) + lambda tau (S_tau - T_tau) + alpha (S - S')
"""

from typing import NamedTuple

import torch
from torch.nn import functional


class Predictions(NamedTuple):
    """What a model predicts for N target tokens, before its output layer.

    Args:
        hidden_states (`torch.Tensor`): `(tokens, hidden)`.
        projection (`torch.Tensor`): `(vocabulary, hidden)`, weight of the output layer.
    """

    hidden_states: torch.Tensor
    projection: torch.Tensor


class LossWeights(NamedTuple):
    """The weights of one step: lambda, alpha, tau and the token gate."""

    teacher_weight: float
    self_weight: float
    temperature: float = 1.0
    token_gate: bool = False


class LossSums(NamedTuple):
    """Sums over tokens, in nats; the divergences unweighted and without tau^2.

    Args:
        loss (`torch.Tensor`): the weighted sum, differentiable.
        ce (`torch.Tensor`): cross-entropy of the student.
        teacher_kl (`torch.Tensor`): KL(T_tau || S_tau), over the gated tokens where the gate is on.
        self_kl (`torch.Tensor`): KL(S' || S).
        teacher_ce (`torch.Tensor`): cross-entropy of the teacher.
    """

    loss: torch.Tensor
    ce: torch.Tensor
    teacher_kl: torch.Tensor
    self_kl: torch.Tensor
    teacher_ce: torch.Tensor


def askd_loss(
    student: Predictions,
    labels: torch.Tensor,
    weights: LossWeights,
    teacher: Predictions | None = None,
    self_teacher: Predictions | None = None,
    chunk_size: int = 256,
) -> LossSums:
    r"""Sum over tokens of `(1 - lambda - alpha) CE + lambda tau^2 KL(T_tau || S_tau) + alpha KL(S' || S)`.

    A missing teacher or self-teacher drops its term; the other weights stay as they are.

    Args:
        student (`Predictions`): differentiable in both tensors.
        labels (`torch.Tensor`): `(tokens,)`, without masked tokens.
        weights (`LossWeights`): of this step.
        teacher (`Predictions`, *optional*): constant.
        self_teacher (`Predictions`, *optional*): constant.
        chunk_size (`int`, *optional*, defaults to 256): tokens whose rows over the vocabulary are in memory at a time.

    Returns:
        `LossSums`; the sums other than `loss` are detached.
    """
    constant = [part for pair in (teacher, self_teacher) for part in (pair or (None, None))]
    return LossSums(*_ChunkedLoss.apply(*student, labels, weights, chunk_size, *constant))


class _ChunkedLoss(torch.autograd.Function):
    """Sums and gradients of a batch, chunk by chunk; see `askd_loss`."""

    @staticmethod
    def forward(ctx, hidden, projection, labels, weights, chunk_size, *constant):
        teacher, self_teacher = (Predictions(*pair) if pair[0] is not None else None for pair in _pairs(constant))
        want_hidden, want_projection = ctx.needs_input_grad[:2]
        sums = torch.zeros(5, dtype=torch.float64 if hidden.dtype == torch.float64 else torch.float32)
        sums = sums.to(hidden.device)
        hidden_gradient = torch.zeros_like(hidden) if want_hidden else None
        projection_gradient = torch.zeros_like(projection) if want_projection else None
        for start in range(0, labels.numel(), chunk_size):
            rows = slice(start, start + chunk_size)
            logits = hidden[rows] @ projection.T
            compute_dtype = logits.dtype
            chunk_sums, gradient = _chunk_loss(
                _full_precision(logits),
                labels[rows],
                weights,
                _logits(teacher, rows),
                _logits(self_teacher, rows),
                want_gradient=want_hidden or want_projection,
            )
            sums += chunk_sums
            if gradient is None:
                continue
            gradient = gradient.to(compute_dtype)
            if hidden_gradient is not None:
                hidden_gradient[rows] = gradient @ projection.to(compute_dtype)
            if projection_gradient is not None:
                _add_product(projection_gradient, gradient.T, hidden[rows].to(compute_dtype))
        ctx.gradients = hidden_gradient, projection_gradient
        loss, *parts = sums.unbind()
        ctx.mark_non_differentiable(*parts)
        return loss, *parts

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, loss_gradient, *_):
        hidden_gradient, projection_gradient = ctx.gradients
        del ctx.gradients
        scaled = [
            gradient if gradient is None else gradient.mul_(loss_gradient)
            for gradient in (hidden_gradient, projection_gradient)
        ]
        return *scaled, *(None,) * (len(ctx.needs_input_grad) - 2)


def _chunk_loss(
    logits: torch.Tensor,
    labels: torch.Tensor,
    weights: LossWeights,
    teacher_logits: torch.Tensor | None,
    self_logits: torch.Tensor | None,
    want_gradient: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The five sums of `LossSums` over a chunk, and d loss / d logits `(tokens, vocabulary)` if wanted."""
    teacher_weight, self_weight, temperature, token_gate = weights
    ce_weight = 1.0 - teacher_weight - self_weight
    student_log = functional.log_softmax(logits, dim=-1)
    ce = -_at(student_log, labels)
    teacher_kl = self_kl = teacher_ce = torch.zeros_like(ce)
    gradient = None
    if want_gradient:
        gradient = student_log.exp().mul_(ce_weight + (self_weight if self_logits is not None else 0.0))
        gradient[torch.arange(labels.numel(), device=labels.device), labels] -= ce_weight
    if teacher_logits is not None:
        teacher_ce = torch.logsumexp(teacher_logits, dim=-1) - _at(teacher_logits, labels)
        gate = (teacher_ce < ce).to(ce.dtype) if token_gate else None
        soft_student = student_log if temperature == 1.0 else functional.log_softmax(logits / temperature, dim=-1)
        teacher_log = functional.log_softmax(teacher_logits / temperature, dim=-1)
        teacher_kl, teacher_probability = _divergence(teacher_log, soft_student)
        if gradient is not None:
            pull = soft_student.exp().sub_(teacher_probability).mul_(teacher_weight * temperature)
            gradient += pull if gate is None else pull.mul_(gate[:, None])
        teacher_kl = teacher_kl if gate is None else teacher_kl * gate
    if self_logits is not None:
        self_kl, self_probability = _divergence(functional.log_softmax(self_logits, dim=-1), student_log)
        if gradient is not None:
            gradient.sub_(self_probability, alpha=self_weight)
    loss = ce_weight * ce + teacher_weight * temperature**2 * teacher_kl + self_weight * self_kl
    return torch.stack([part.sum() for part in (loss, ce, teacher_kl, self_kl, teacher_ce)]), gradient


def _divergence(target_log: torch.Tensor, log: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """KL of two rows of log-probabilities, `(tokens,)`, and the target's probabilities; overwrites `target_log`."""
    probability = target_log.exp()
    difference = target_log.sub_(log)
    return torch.linalg.vecdot(probability, difference), probability


def _at(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return rows.gather(1, labels[:, None]).squeeze(1)


def _logits(predictions: Predictions | None, rows: slice) -> torch.Tensor | None:
    if predictions is None:
        return None
    return _full_precision(predictions.hidden_states[rows] @ predictions.projection.T)


def _full_precision(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _add_product(total: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> None:
    """`total += left @ right`, without a temporary if the types allow it."""
    if total.dtype == left.dtype == right.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right


def _pairs(constant: tuple) -> tuple[tuple, tuple]:
    return constant[:2], constant[2:]
