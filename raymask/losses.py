"""The cross-entropy of self-distillation, without ever holding logits in float32.

A student row x and a target q over K prototypes w_k have the loss

    -sum_k q_k log softmax(z)_k = (sum_k q_k) log sum_k exp(z_k) - x . sum_k q_k w_k / temperature

with z_k = x . w_k / temperature. So what is needed of the K columns is one log-sum-exp a student row and one
expected prototype a target row: `partition_and_expectation` computes both, a block of prototypes at a time,
and keeps the exponentials once, in the dtype of the matrix products. Everything that is particular to a
method (which view is compared with which, weights of rows) happens on small tensors behind it, and is left
to autograd.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

# b: images   v: student views   g: teacher views   r: student rows   t: target rows
# k: prototypes   d: width of the bottleneck

# Logits that exist in float32 at any time: few enough for a CPU's caches, enough to fill a GPU.
BLOCK = {"cpu": 1 << 19, "cuda": 1 << 24}


class Targets(NamedTuple):
    """What a teacher says about its rows.

    probabilities: over prototypes, in the dtype of its logits
    logit_sum: the sum of its raw logits over rows, for the center
    entropy: of each row, in nats
    mean_entropy: of the mean row: ln K where all prototypes are used alike, 0 where all rows agree on one
    """

    probabilities: Float[Tensor, "t k"]
    logit_sum: Float[Tensor, " k"]
    entropy: Float[Tensor, " t"]
    mean_entropy: Float[Tensor, ""]


class Prototypes(NamedTuple):
    """A weight-normalised layer: row k is gain_k * direction_k / |direction_k|."""

    direction: Float[Tensor, "k d"]
    gain: Float[Tensor, "k 1"]

    @classmethod
    def of(cls, weight: "Prototypes | Float[Tensor, 'k d']") -> "Prototypes":
        """Any weight as such a layer: its rows' own lengths are the gains."""
        return weight if isinstance(weight, Prototypes) else cls(weight, weight.norm(dim=1, keepdim=True))


def cross_view_loss(
    student: Float[Tensor, "v b d"],
    weight: Prototypes | Float[Tensor, "k d"],
    targets: Float[Tensor, "g b k"],
    *,
    temperature: float,
) -> Float[Tensor, "g v"]:
    """DINO's cross-entropies (eq. 3, arXiv:2104.14294) of teacher views with student views, over images.

    The loss is the mean of the entries off the diagonal (`mean_over_pairs`): teacher view a and student view
    a are one crop. `student` holds bottleneck rows.
    """
    with torch.autocast(student.device.type, enabled=False):
        views, images, width = student.shape
        wide = torch.promote_types(student.dtype, torch.float32)
        rows = (student.to(wide) / temperature).flatten(0, 1)
        partition, expected = partition_and_expectation(rows, weight, targets.flatten(0, 1))
        partition = partition.view(views, images)
        expected = expected.view(-1, images, width)
        mass = targets.sum(-1, dtype=partition.dtype)
        agreement = torch.einsum("gbd,vbd->gv", expected, rows.view(views, images, width))
        return (mass @ partition.T - agreement) / images


def patch_loss(
    student: Float[Tensor, "r d"],
    weight: Float[Tensor, "k d"],
    targets: Float[Tensor, "r k"],
    weights: Float[Tensor, " r"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """iBOT's cross-entropy of student rows with targets of the same patches (eq. 2, arXiv:2111.07832)."""
    with torch.autocast(student.device.type, enabled=False):
        rows = student.to(torch.promote_types(student.dtype, torch.float32)) / temperature
        partition, expected = partition_and_expectation(rows, weight, targets)
        mass = targets.sum(-1, dtype=partition.dtype)
        terms = mass * partition - (expected * rows).sum(-1)
        return (terms * weights.to(terms.dtype)).sum()


def mean_over_pairs(terms: Float[Tensor, "g v"]) -> Float[Tensor, ""]:
    """The mean over pairs of different crops."""
    pairs = terms.numel() - terms.diagonal().numel()
    if not pairs:
        raise ValueError("one crop an image gives no pair to compare: ask for at least two global crops")
    return (terms.sum() - terms.diagonal().sum()) / pairs


@torch.no_grad()
def teacher_targets(
    rows: Float[Tensor, "t d"],
    weight: Prototypes | Float[Tensor, "k d"],
    center: Float[Tensor, " k"],
    *,
    temperature: float,
) -> Targets:
    """softmax((z - center) / temperature) of the logits z, and what center and monitors need.

    Under autocast the product runs in its dtype, and so are the probabilities kept; else in that of the rows.
    """
    kind = rows.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else rows.dtype
    with torch.autocast(kind, enabled=False):
        logits = _logits(rows.to(dtype), Prototypes.of(weight))
        wide = torch.promote_types(logits.dtype, torch.float32)
        logit_sum = torch.zeros_like(center, dtype=wide)
        mean = torch.zeros_like(logit_sum)
        entropies = []
        # In place, a few rows at a time: what starts as logits ends as probabilities.
        for part in logits.split(_share(logits.device, logits.shape[1])):
            block = part.to(wide)
            logit_sum += block.sum(0)
            log_q = ((block - center) / temperature).log_softmax(-1)
            q = log_q.exp()
            entropies.append(-(q * log_q).sum(-1))
            mean += q.sum(0)
            part.copy_(q)
        mean /= len(rows)
        return Targets(logits, logit_sum, torch.cat(entropies), -torch.xlogy(mean, mean).sum())


def moved_center(
    center: Float[Tensor, " k"], logit_sum: Float[Tensor, " k"], rows: Tensor | int, *, momentum: float
) -> Float[Tensor, " k"]:
    """The center's moving average after a batch of so many teacher rows (DINO eq. 4)."""
    return momentum * center + (1 - momentum) * logit_sum / rows


def partition_and_expectation(
    rows: Float[Tensor, "r d"],
    weight: Prototypes | Float[Tensor, "k d"],
    targets: Float[Tensor, "t k"],
) -> tuple[Float[Tensor, " r"], Float[Tensor, "t d"]]:
    """log sum_k exp(rows . prototype_k), and sum_k targets_k prototype_k; targets have no gradient.

    Matrix products run in the dtype of `targets`; sums and results are float32 (float64 for float64).
    """
    return _PartitionAndExpectation.apply(rows, *Prototypes.of(weight), targets)


class _PartitionAndExpectation(torch.autograd.Function):
    """Forward keeps exp(z - top) of each block, with `top` the block's own maximum of each row.

    Backward needs softmax = exp(z - top) * exp(top - partition): a factor a row, which the small operand of
    each product takes, so that the blocks are read but never rewritten. The normalisation of the prototypes
    goes by blocks too: neither the effective weight nor its gradient ever exists as a whole in float32.
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, direction: Tensor, gain: Tensor, targets: Tensor
    ) -> tuple[Float[Tensor, " r"], Float[Tensor, "t d"]]:
        narrow, wide = targets.dtype, torch.promote_types(targets.dtype, torch.float32)
        small = rows.to(narrow)
        expected = torch.zeros(len(targets), rows.shape[1], dtype=wide, device=rows.device)
        size = _share(rows.device, max(rows.shape))
        norms, weights, masses, tops, sums = [], [], [], [], []
        for part, gains, target in zip(direction.split(size), gain.split(size), targets.split(size, 1)):
            norm = part.norm(dim=1, keepdim=True)
            weight = (part * (gains / norm)).to(narrow)
            block = (small @ weight.T).to(wide)
            top = block.amax(1)
            block.sub_(top[:, None]).exp_()
            expected += target @ weight
            norms.append(norm)
            weights.append(weight)
            masses.append(block.to(narrow))
            tops.append(top)
            sums.append(block.sum(1))
        top = torch.stack(tops)
        partition = (top + torch.stack(sums).log()).logsumexp(0)
        factors = torch.exp(top - partition)
        ctx.save_for_backward(rows, direction, gain, targets, torch.cat(norms), factors, *weights, *masses)
        return partition, expected

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, by_partition: Float[Tensor, " r"], by_expected: Float[Tensor, "t d"]
    ) -> tuple[Tensor, Tensor, Tensor | None, None]:
        rows, direction, gain, targets, norms, factors, *blocks = ctx.saved_tensors
        weights, masses = blocks[: len(factors)], blocks[len(factors) :]
        size, narrow = len(weights[0]), targets.dtype
        factors, by_expected, small = factors * by_partition, by_expected.to(narrow), rows.to(narrow)
        by_rows = torch.zeros(rows.shape, dtype=factors.dtype, device=rows.device)
        by_direction = torch.empty_like(direction)
        by_gain = torch.empty_like(gain) if ctx.needs_input_grad[2] else None
        parts = (t.split(size) for t in (direction, gain, norms, by_direction))
        for number, (part, gains, norm, result) in enumerate(zip(*parts)):
            mass, factor = masses[number], factors[number, :, None]
            place = slice(number * size, (number + 1) * size)
            by_rows += (mass @ weights[number]) * factor
            scaled = (small * factor).to(narrow)
            by_weight = torch.addmm(targets[:, place].T @ by_expected, mass.T, scaled).to(part.dtype)
            along = (by_weight * part).sum(1, keepdim=True) / norm
            # Only what turns the direction counts: its length is normalised away.
            torch.mul(by_weight.sub_(part * (along / norm)), gains / norm, out=result)
            if by_gain is not None:
                by_gain[place] = along
        return by_rows.to(rows.dtype), by_direction, by_gain, None


def _logits(rows: Float[Tensor, "t d"], prototypes: Prototypes) -> Float[Tensor, "t k"]:
    """Scores of all prototypes, in the dtype of the rows, the prototypes normalised block by block."""
    logits = rows.new_empty(len(rows), len(prototypes.direction))
    size = _share(rows.device, max(rows.shape))
    parts = (t.split(size) for t in prototypes)
    for direction, gain, block in zip(*parts, logits.split(size, 1)):
        weight = direction * (gain / direction.norm(dim=1, keepdim=True))
        block.copy_(rows @ weight.to(rows.dtype).T)
    return logits


def _share(device: torch.device, width: int) -> int:
    """How many rows (or columns) of this width make a block."""
    return max(1, BLOCK.get(device.type, BLOCK["cpu"]) // width)
