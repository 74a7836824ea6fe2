"""The chunked loss against a plain float64 implementation written here."""

import itertools

import pytest
import torch

from fastwhisper.trainers.askd_loss import LossWeights, Predictions, askd_loss

from .conftest import LargestTensor

TOKENS, HIDDEN, VOCABULARY = 23, 8, 37


def reference(student, labels, weights, teacher, self_teacher):
    """The formula of the specification, one token at a time, from full logits."""
    teacher_weight, self_weight, temperature, gate = weights
    parts = {"loss": 0.0, "ce": 0.0, "teacher_kl": 0.0, "self_kl": 0.0}
    for position, label in enumerate(labels.tolist()):
        z = student[position]
        log_s = z - torch.logsumexp(z, 0)
        ce = -log_s[label]
        teacher_kl = self_kl = torch.zeros((), dtype=torch.float64)
        if teacher is not None:
            t = teacher[position]
            teacher_ce = -(t - torch.logsumexp(t, 0))[label]
            t_tau = torch.softmax(t / temperature, 0)
            s_tau = torch.softmax(z / temperature, 0)
            if not gate or teacher_ce < ce:
                teacher_kl = (t_tau * (t_tau.log() - s_tau.log())).sum()
        if self_teacher is not None:
            q = torch.softmax(self_teacher[position], 0)
            self_kl = (q * (q.log() - log_s)).sum()
        parts["ce"] += ce
        parts["teacher_kl"] += teacher_kl
        parts["self_kl"] += self_kl
        parts["loss"] += (
            (1 - teacher_weight - self_weight) * ce
            + teacher_weight * temperature**2 * teacher_kl
            + self_weight * self_kl
        )
    return parts


def make(seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(TOKENS, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    projection = torch.randn(VOCABULARY, HIDDEN, generator=generator, dtype=torch.float64).to(dtype)
    return Predictions(hidden, projection)


SETTINGS = [
    LossWeights(teacher_weight, self_weight, temperature, gate)
    for (teacher_weight, self_weight), temperature, gate in itertools.product(
        [(0.0, 0.0), (0.8, 0.0), (0.0, 0.5), (0.4, 0.3), (1.0, 0.0), (0.0, 1.0)], [1.0, 2.0], [False, True]
    )
]


@pytest.mark.parametrize("weights", SETTINGS, ids=str)
@pytest.mark.parametrize("chunk_size", [1, 7, 64])
def test_sums_and_gradients_equal_the_reference(weights, chunk_size):
    student, teacher, self_teacher = make(0), make(1), make(2)
    teacher = teacher if weights.teacher_weight else None
    self_teacher = self_teacher if weights.self_weight else None
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(3))

    leaves = [part.clone().requires_grad_() for part in student]
    sums = askd_loss(Predictions(*leaves), labels, weights, teacher, self_teacher, chunk_size)
    (sums.loss * 0.3).backward()

    plain = [part.clone().requires_grad_() for part in student]
    expected = reference(
        plain[0] @ plain[1].T,
        labels,
        weights,
        None if teacher is None else teacher.hidden_states @ teacher.projection.T,
        None if self_teacher is None else self_teacher.hidden_states @ self_teacher.projection.T,
    )
    (expected["loss"] * 0.3).backward()

    for name, value in expected.items():
        assert float(getattr(sums, name)) == pytest.approx(float(value), rel=1e-9, abs=1e-9), name
    for leaf, other in zip(leaves, plain, strict=True):
        torch.testing.assert_close(leaf.grad, other.grad, rtol=1e-9, atol=1e-10)


def test_float32_is_close_to_float64():
    labels = torch.randint(VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(3))
    weights = LossWeights(0.5, 0.2, 2.0)
    single = askd_loss(make(0, torch.float32), labels, weights, make(1, torch.float32), make(2, torch.float32))
    double = askd_loss(make(0), labels, weights, make(1), make(2))
    for mine, exact in zip(single, double, strict=True):
        assert float(mine) == pytest.approx(float(exact), rel=1e-5)


def test_teacher_of_another_width():
    student, labels = make(0), torch.zeros(TOKENS, dtype=torch.long)
    generator = torch.Generator().manual_seed(5)
    wide = Predictions(
        torch.randn(TOKENS, 11, generator=generator, dtype=torch.float64),
        torch.randn(VOCABULARY, 11, generator=generator, dtype=torch.float64),
    )
    weights = LossWeights(0.8, 0.0)
    sums = askd_loss(student, labels, weights, wide, None, 5)
    expected = reference(
        student.hidden_states @ student.projection.T, labels, weights, wide.hidden_states @ wide.projection.T, None
    )
    assert float(sums.loss) == pytest.approx(float(expected["loss"]), rel=1e-9)


def test_a_student_equal_to_its_teacher_has_no_divergence():
    student = make(0)
    labels = torch.zeros(TOKENS, dtype=torch.long)
    sums = askd_loss(student, labels, LossWeights(0.5, 0.5, 3.0), student, student)
    assert float(sums.teacher_kl) == pytest.approx(0.0, abs=1e-12)
    assert float(sums.self_kl) == pytest.approx(0.0, abs=1e-12)


def test_extreme_logits_stay_finite():
    hidden = torch.full((2, HIDDEN), 300.0)
    projection = torch.randn(VOCABULARY, HIDDEN, generator=torch.Generator().manual_seed(0))
    leaves = [hidden.requires_grad_(), projection.requires_grad_()]
    student = Predictions(*leaves)
    other = Predictions(-hidden.detach(), projection.detach())
    sums = askd_loss(student, torch.tensor([0, 1]), LossWeights(0.5, 0.2, 0.5), other, other)
    sums.loss.backward()
    assert torch.isfinite(sums.loss) and all(torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_frozen_projection_and_no_gradient():
    student = make(0)
    labels = torch.zeros(TOKENS, dtype=torch.long)
    hidden = student.hidden_states.clone().requires_grad_()
    askd_loss(Predictions(hidden, student.projection), labels, LossWeights(0.0, 0.0)).loss.backward()
    assert hidden.grad is not None and student.projection.grad is None
    assert not askd_loss(student, labels, LossWeights(0.0, 0.0)).loss.requires_grad


def test_no_matrix_is_larger_than_a_chunk_over_the_vocabulary():
    """Of all that is computed, forwards and backwards: 64 tokens by 1,000 ids, in chunks of 4."""
    hidden, projection = torch.randn(64, 2), torch.randn(1000, 2)
    student = Predictions(hidden.requires_grad_(), projection.requires_grad_())
    other = Predictions(torch.randn(64, 2), torch.randn(1000, 2))
    labels = torch.zeros(64, dtype=torch.long)
    with LargestTensor() as largest:
        askd_loss(student, labels, LossWeights(0.5, 0.2, 2.0), other, other, chunk_size=4).loss.backward()
    assert largest.elements == 4 * 1000
