"""Which patches a network keeps: from scores to the sorted places of the patches that stay.

Selection is by whole numbers, so nothing flows back through it; scores are compared in float32 or better even
under autocast (ranks of bfloat16 scores collapse), and ties go to the lower place, so that every device
agrees. Kept places come out in ascending order: the forward does not care, but terms that compare one place
over several images (manifold distillation) want one common order.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

# b: images   h: heads   q, k: query and key tokens   n: patches   n2: patches of another grid   kept: kept
# patches

# MaskedKD's Tables 1 and 2 say "75 %" and "40 %" where the published FLOPs fit 144 and 80 of 196 patches, not
# the rounded 147 and 78 (arXiv:2302.10494). Its 50 % and 25 % are plain: 98 and 49, and so are 192 and 128 of
# 256.
PUBLISHED_COUNTS = {(196, 0.75): 144, (196, 0.40): 80}


def keep_count(patches: int, ratio: float) -> int:
    """How many of `patches` a keep ratio means: the paper's own counts on its 14 x 14 grid, else the nearest
    number.

    >>> [keep_count(196, ratio) for ratio in (1.0, 0.75, 0.5, 0.4, 0.25)]
    [196, 144, 98, 80, 49]
    """
    if not 0 < ratio <= 1:
        raise ValueError(
            f"the keep ratio is {ratio}, but a share of the patches lies above 0 and at most at 1"
        )
    return PUBLISHED_COUNTS.get((patches, round(ratio, 6)), max(1, int(ratio * patches + 0.5)))


def check_count(count: int, *, patches: int) -> int:
    """`count`, if so many of `patches` can be kept; otherwise an error that says what is possible."""
    if not 1 <= count <= patches:
        raise ValueError(f"cannot keep {count} patches: the network has {patches}, so keep 1 to {patches}")
    return count


def patch_scores(attention: Float[Tensor, "b h q k"], *, prefix: int = 1) -> Float[Tensor, "b n"]:
    """The head-mean of what [CLS] (row 0) pays to each patch; `prefix` tokens stand before the patches.

    Not renormalised after the prefix columns are gone: the order of patches does not change.
    """
    return attention[:, :, 0, prefix:].detach().to(_at_least_float32(attention)).mean(1)


def keep_highest(scores: Float[Tensor, "b n"], count: int) -> Int[Tensor, "b kept"]:
    """The places of the `count` highest scores of each row, ascending; among equals the lower place wins."""
    check_count(count, patches=scores.shape[1])
    order = torch.sort(scores.to(_at_least_float32(scores)), dim=1, descending=True, stable=True).indices
    return order[:, :count].sort(dim=1).values


def with_random_share(
    scores: Float[Tensor, "b n"], noise: Float[Tensor, "b n"], *, count: int, share: float
) -> Float[Tensor, "b n"]:
    """Scores whose `count` highest are the true highest but for a share of `count` drawn among all the
    others.

    MaskedKD's "top 40 % and 10 % at random" is count = 50 % and share = 0.2. `noise` is uniform in [0, 1).
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the random share is {share}, but a share of the kept patches lies from 0 to 1")
    sure = count - int(share * count + 0.5)
    order = torch.sort(scores.to(_at_least_float32(scores)), dim=1, descending=True, stable=True).indices
    first = torch.zeros_like(noise).scatter_(1, order[:, :sure], 1.0)
    return noise + first


def map_grid(
    scores: Float[Tensor, "b n"], *, source: tuple[int, int], target: tuple[int, int]
) -> Float[Tensor, "b n2"]:
    """Scores of a grid of `source` (rows, columns) read off at the centres of a grid of `target`, bilinearly.

    For a follower whose patches or resolution differ from the guide's; counts are then of the target's
    patches.
    """
    if scores.shape[1] != source[0] * source[1]:
        raise ValueError(f"{scores.shape[1]} scores do not fill a grid of {source[0]} x {source[1]} patches")
    if source == target:
        return scores
    field = scores.to(_at_least_float32(scores)).unflatten(1, source)[:, None]
    return functional.interpolate(field, size=target, mode="bilinear", align_corners=False).flatten(1)


def _at_least_float32(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)
