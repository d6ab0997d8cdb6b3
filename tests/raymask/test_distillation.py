"""Losses of distillation: their formulas, and where gradients go."""

import pytest
import torch
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from torch.nn import functional

from raymask.distillation import (
    base_loss,
    combine,
    deit_soft_loss,
    hard_loss,
    manifold_terms,
    soft_loss,
)


def logits(seed: int, rows: int = 6, classes: int = 10) -> torch.Tensor:
    return torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_loss_is_the_mean_divergence_times_the_squared_temperature(temperature):
    student, teacher = logits(0), logits(1)
    p, q = (teacher / temperature).softmax(-1), (student / temperature).softmax(-1)
    expected = temperature**2 * (p * (p / q).log()).sum(-1).mean()
    assert torch.allclose(soft_loss(student, teacher, temperature=temperature), expected)


def test_a_student_that_says_what_its_teacher_says_has_nothing_to_learn():
    student = logits(0).requires_grad_()
    loss = soft_loss(student, student.detach() + 3.0)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-12)
    assert student.grad.abs().max() < 1e-12


def test_deits_soft_loss_is_weaker_by_the_number_of_classes():
    assert torch.allclose(deit_soft_loss(logits(0), logits(1)) * 10, soft_loss(logits(0), logits(1)))


def test_the_hard_loss_learns_the_teachers_first_choice():
    student, teacher = logits(0), logits(1)
    expected = -student.log_softmax(-1)[torch.arange(6), teacher.argmax(-1)].mean()
    assert torch.allclose(hard_loss(student, teacher), expected)


@pytest.mark.parametrize("loss", [soft_loss, hard_loss, deit_soft_loss])
def test_no_gradient_reaches_the_teacher(loss):
    student, teacher = logits(0).requires_grad_(), logits(1).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


def test_the_base_loss_is_timms():
    student, labels = logits(0), torch.arange(6)
    targets = logits(2).softmax(-1)
    assert torch.allclose(base_loss(student, targets), SoftTargetCrossEntropy()(student, targets))
    smoothed = LabelSmoothingCrossEntropy(smoothing=0.1)(student, labels)
    assert torch.allclose(base_loss(student, labels, smoothing=0.1), smoothed)
    assert torch.allclose(base_loss(student, labels), functional.cross_entropy(student, labels))


def test_alpha_weighs_the_teacher_against_the_labels():
    base, kd = torch.tensor(2.0), torch.tensor(4.0)
    assert [combine(base, kd, alpha=alpha).item() for alpha in (0.0, 0.5, 1.0)] == [2.0, 3.0, 4.0]


def tokens(width: int, seed: int) -> torch.Tensor:
    return torch.randn(4, 9, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotated_and_scaled_tokens_are_laid_out_alike():
    student = tokens(12, 0)
    turn = torch.linalg.qr(logits(3, 12, 12)).Q
    terms = manifold_terms(student, 3 * student @ turn, chosen=torch.arange(20))
    assert max(terms.patch, terms.sample, terms.random) < 1e-20


def test_each_manifold_term_compares_what_it_says():
    ours, theirs = functional.normalize(tokens(12, 0), dim=-1), functional.normalize(tokens(16, 1), dim=-1)
    chosen = torch.tensor([3, 30, 14])
    terms = manifold_terms(2 * ours, 5 * theirs, chosen=chosen)

    def difference(a, b):
        return sum(
            (float(a[i] @ a[j]) - float(b[i] @ b[j])) ** 2 for i in range(len(a)) for j in range(len(a))
        )

    patch = sum(difference(ours[image], theirs[image]) for image in range(4)) / (4 * 9 * 9)
    sample = sum(difference(ours[:, place], theirs[:, place]) for place in range(9)) / (9 * 4 * 4)
    random = difference(ours.flatten(0, 1)[chosen], theirs.flatten(0, 1)[chosen]) / 9
    assert [terms.patch.item(), terms.sample.item(), terms.random.item()] == pytest.approx(
        [patch, sample, random]
    )
    assert terms.weighted(patch=1, sample=2, random=3).item() == pytest.approx(
        patch + 2 * sample + 3 * random
    )


def test_tokens_of_different_patches_are_refused():
    with pytest.raises(ValueError, match="their patch grids must agree"):
        manifold_terms(tokens(12, 0), tokens(12, 1)[:, :5], chosen=torch.arange(3))
