"""The fused cross-entropy is the cross-entropy, in value, gradient and every dtype."""

import pytest
import torch
from torch import Tensor

from raymask import losses
from raymask.losses import (
    Prototypes,
    cross_view_loss,
    mean_over_pairs,
    partition_and_expectation,
    teacher_targets,
)

VIEWS, IMAGES, WIDTH, PROTOTYPES = 5, 3, 6, 37


def example(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    student = torch.nn.functional.normalize(torch.randn(VIEWS, IMAGES, WIDTH, generator=draw), dim=-1)
    weight = torch.nn.functional.normalize(torch.randn(PROTOTYPES, WIDTH, generator=draw), dim=-1)
    targets = (4 * torch.randn(2, IMAGES, PROTOTYPES, generator=draw)).softmax(-1)
    return student.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets.to(dtype)


def by_pairs(student: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Equation 3 as it is written: one log-softmax a pair."""
    logits = student @ weight.T / temperature
    terms = [
        -(target * view.log_softmax(-1)).sum(-1).mean()
        for a, target in enumerate(targets)
        for b, view in enumerate(logits)
        if a != b
    ]
    return torch.stack(terms).mean()


@pytest.fixture(params=[1, 40, 1 << 20], ids=["a column a block", "uneven blocks", "one block"])
def block(request, monkeypatch):
    monkeypatch.setitem(losses.BLOCK, "cpu", request.param)


@pytest.mark.usefixtures("block")
def test_the_fused_loss_and_its_gradients_are_those_of_the_formula():
    student, weight, targets = example()
    fused = mean_over_pairs(cross_view_loss(student, weight, targets, temperature=0.1))
    plain = by_pairs(student, weight, targets, 0.1)
    assert abs(fused.item() - plain.item()) < 1e-12
    for got, expected in zip(
        torch.autograd.grad(fused, (student, weight)), torch.autograd.grad(plain, (student, weight))
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("block")
def test_the_normalisation_of_the_prototypes_is_part_of_the_gradient():
    student, direction, targets = example()
    direction = (3 * direction).detach().requires_grad_()
    gain = torch.linspace(0.5, 2, PROTOTYPES, dtype=torch.float64)[:, None].requires_grad_()
    fused = cross_view_loss(student, Prototypes(direction, gain), targets, temperature=0.1)
    weight = direction * (gain / direction.norm(dim=1, keepdim=True))
    plain = by_pairs(student, weight, targets, 0.1)
    leaves = (student, direction, gain)
    for got, expected in zip(
        torch.autograd.grad(mean_over_pairs(fused), leaves), torch.autograd.grad(plain, leaves)
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-12)


@pytest.mark.usefixtures("block")
def test_partition_and_expectation_pass_gradcheck():
    student, weight, targets = example()
    rows = student.detach().flatten(0, 1).mul(3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda r, w: partition_and_expectation(r, w, targets.flatten(0, 1)), (rows, weight)
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_lower_precision_stays_near_the_formula(dtype, tolerance):
    student, weight, targets = example()
    plain = by_pairs(student, weight, targets, 0.1)
    expected = torch.autograd.grad(plain, (student, weight))
    student32, weight32, _ = example(torch.float32)
    fused = mean_over_pairs(cross_view_loss(student32, weight32, targets.to(dtype), temperature=0.1))
    assert fused.dtype == torch.float32
    assert abs(fused.item() - plain.item()) < tolerance * abs(plain.item())
    for got, exact in zip(torch.autograd.grad(fused, (student32, weight32)), expected):
        assert (got - exact).norm() < tolerance * exact.norm()


def test_huge_logits_neither_overflow_nor_vanish():
    student, weight, targets = example(torch.float32)
    for scale in (1e-3, 1e4):
        loss = mean_over_pairs(cross_view_loss(student * scale, weight, targets, temperature=0.1))
        gradient = torch.autograd.grad(loss, student)[0]
        assert loss.isfinite() and gradient.isfinite().all() and gradient.abs().sum() > 0


def test_the_loss_under_autocast_is_the_loss_of_its_targets_dtype():
    student, weight, targets = example(torch.float32)
    outside = cross_view_loss(student, weight, targets.bfloat16(), temperature=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        inside = cross_view_loss(student, weight, targets.bfloat16(), temperature=0.1)
    assert torch.equal(outside, inside) and inside.dtype == torch.float32


def test_the_loss_survives_torch_compile():
    student, weight, targets = example(torch.float32)

    def loss(student: Tensor) -> Tensor:
        return mean_over_pairs(cross_view_loss(2 * student, weight, targets, temperature=0.1))

    compiled = torch.compile(loss, backend="aot_eager")(student)
    torch.testing.assert_close(compiled, loss(student))
    torch.testing.assert_close(
        torch.autograd.grad(compiled, student), torch.autograd.grad(loss(student), student)
    )


@pytest.mark.usefixtures("block")
def test_teacher_targets_are_the_sharpened_centred_softmax():
    draw = torch.Generator().manual_seed(1)
    rows, weight = (torch.randn(n, WIDTH, generator=draw, dtype=torch.float64) for n in (7, PROTOTYPES))
    center = torch.randn(PROTOTYPES, generator=draw, dtype=torch.float64)
    logits = rows @ weight.T
    expected = ((logits - center) / 0.5).softmax(-1)
    got = teacher_targets(rows, weight, center, temperature=0.5)
    close = {"rtol": 0, "atol": 1e-12}
    torch.testing.assert_close(got.probabilities, expected, **close)
    torch.testing.assert_close(got.logit_sum, logits.sum(0), **close)
    torch.testing.assert_close(got.entropy, torch.distributions.Categorical(expected).entropy(), **close)
    torch.testing.assert_close(
        got.mean_entropy, torch.distributions.Categorical(expected.mean(0)).entropy(), **close
    )


def test_one_crop_is_never_compared_with_itself():
    terms = torch.arange(8.0).view(2, 4)
    assert mean_over_pairs(terms) == (1 + 2 + 3 + 4 + 6 + 7) / 6
