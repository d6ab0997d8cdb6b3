"""Losses of knowledge distillation, as pure functions of logits or tokens. Only the student's side has a
gradient.

soft      tau^2 KL(teacher || student), summed over classes, mean over images (MaskedKD's own)
hard      cross-entropy with the teacher's first choice
attention KL(teacher || student) of what [CLS] attends to among the same patches (our reading)
deit      the soft term as DeiT's code has it: divided by the number of classes as well (1000 times weaker on
ImageNet) manifold  squared differences of cosine-similarity matrices of tokens (Hao et al., NeurIPS 2022)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

# b: images   c: classes   n, m: tokens   ds, dt: width of student and teacher   r: tokens of the random term


def base_loss(
    logits: Float[Tensor, "b c"], targets: Int[Tensor, " b"] | Float[Tensor, "b c"], *, smoothing: float = 0.0
) -> Float[Tensor, ""]:
    """Cross-entropy with class numbers (smoothed), or with rows of probabilities (mixup) as they are."""
    if targets.is_floating_point():
        return -(targets * functional.log_softmax(logits, -1)).sum(-1).mean()
    return functional.cross_entropy(logits, targets, label_smoothing=smoothing)


def soft_loss(
    student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """temperature^2 * KL(teacher || student) of logits over the temperature, mean over images."""
    return temperature**2 * _divergence(student, teacher, temperature=temperature).mean()


def hard_loss(student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"]) -> Float[Tensor, ""]:
    """Cross-entropy of the student with the class that the teacher finds likeliest."""
    return functional.cross_entropy(student, teacher.argmax(-1))


def deit_soft_loss(
    student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"], *, temperature: float = 1.0
) -> Float[Tensor, ""]:
    """DeiT's soft term: `soft_loss` over the number of classes (the mean runs over batch and classes)."""
    return soft_loss(student, teacher, temperature=temperature) / student.shape[-1]


def attention_loss(student: Float[Tensor, "b n"], teacher: Float[Tensor, "b n"]) -> Float[Tensor, ""]:
    """KL(teacher || student) of what [CLS] attends to among the same patches, each made to sum to one over
    them; mean over images."""
    ours, theirs = (row / row.sum(-1, keepdim=True) for row in (student, teacher.detach()))
    tiny = torch.finfo(ours.dtype).tiny
    return functional.kl_div(ours.clamp_min(tiny).log(), theirs, reduction="batchmean")


def combine(base: Float[Tensor, ""], distilled: Float[Tensor, ""], *, alpha: float) -> Float[Tensor, ""]:
    """(1 - alpha) * base + alpha * distilled; the paper's CE + lambda KD up to a factor 1 - alpha."""
    return (1 - alpha) * base + alpha * distilled


def _divergence(
    student: Float[Tensor, "b c"], teacher: Float[Tensor, "b c"], *, temperature: float
) -> Float[Tensor, " b"]:
    target = functional.log_softmax(teacher.detach() / temperature, -1)
    return (target.exp() * (target - functional.log_softmax(student / temperature, -1))).sum(-1)


@dataclass(frozen=True)
class ManifoldTerms:
    """The terms of one pair of layers: within an image, across images at one place, among random tokens."""

    patch: Float[Tensor, ""]
    sample: Float[Tensor, ""]
    random: Float[Tensor, ""]

    def weighted(self, *, patch: float = 4.0, sample: float = 0.1, random: float = 0.2) -> Float[Tensor, ""]:
        """The weighted sum, by default with the weights of the paper's own runs."""
        return patch * self.patch + sample * self.sample + random * self.random


def manifold_terms(
    student: Float[Tensor, "b n ds"], teacher: Float[Tensor, "b m dt"], *, chosen: Int[Tensor, " r"]
) -> ManifoldTerms:
    """How differently the two networks lay out the same tokens; `chosen` are places in the flattened b * n
    tokens.

    Under a masked teacher, give the student's tokens at the kept places, in ascending order: the term across
    images compares one place of every row, and after a choice per image the rows no longer share places (our
    reading).
    """
    if student.shape[:2] != teacher.shape[:2]:
        raise ValueError(
            f"manifold distillation compares the same tokens, but the student gives {student.shape[1]} "
            f"patches of an image and the teacher {teacher.shape[1]}: their patch grids must agree"
        )
    ours, theirs = functional.normalize(student, dim=-1), functional.normalize(teacher.detach(), dim=-1)
    return ManifoldTerms(
        patch=_layout_difference(ours, theirs),
        sample=_layout_difference(ours.transpose(0, 1), theirs.transpose(0, 1)),
        random=_layout_difference(ours.flatten(0, 1)[chosen], theirs.flatten(0, 1)[chosen]),
    )


def _layout_difference(
    ours: Float[Tensor, "*many n ds"], theirs: Float[Tensor, "*many n dt"]
) -> Float[Tensor, ""]:
    return (torch.matmul(ours, ours.mT) - torch.matmul(theirs, theirs.mT)).square().mean()
