"""Block-wise masks: rectangles of patches until a budget is used up (BEiT, arXiv:2106.08254, as iBOT has it).

The process is sequential, so it is not a ranking, and the count of a row only comes near its budget: a block
that would exceed it is refused, and a row ends when ten tries in a row are. All rows go through it at once.
"""

from math import log
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.strategy import Guide
from raymask.streams import uniforms

# b: rows   t: tries   n: patches

TRIES = 10  # refused tries in a row that end a row's mask
# Tries of a row in all: of 4,000 rows of 32 x 32 patches at ratio 0.5 one needs more than 40, none over 50.
LIMIT = 64
ASPECT = log(0.3), -log(0.3)  # range of the logarithm of a block's height over its width


class BlockStrategy(Settings):
    """Hide rectangles (iBOT's default)."""

    kind: Literal["block"] = "block"

    @property
    def hides_exact_counts(self) -> bool:
        return False

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """At most `ratio` of each row's patches, in blocks."""
        rows, columns = guide.grid
        draws = uniforms(guide.keys, LIMIT * 4).unflatten(1, (-1, 4))
        return block_masks(draws, guide.ratios * (rows * columns), guide.grid).flatten(1)


def block_masks(
    draws: Float[Tensor, "b t 4"], budget: Float[Tensor, " b"], grid: tuple[int, int]
) -> Bool[Tensor, "b rows columns"]:
    """Masks of at most `budget` patches; a try takes four uniform draws: area, aspect, top, left.

    The area is uniform between (shorter side // 3)^2 and what is left of the budget, whichever is larger.
    """
    height, width = grid
    least = (min(grid) // 3) ** 2
    row = torch.arange(height, device=draws.device)[:, None]
    column = torch.arange(width, device=draws.device)
    mask = torch.zeros(len(draws), height, width, dtype=torch.bool, device=draws.device)
    count, refused = torch.zeros_like(budget), torch.zeros_like(budget)
    for area, aspect, top, left in (draw.unbind(1) for draw in draws.unbind(1)):
        remaining = budget - count
        area = least + area * (remaining - least)
        aspect = torch.exp(ASPECT[0] + aspect * (ASPECT[1] - ASPECT[0]))
        h, w = torch.round(torch.sqrt(area * aspect)), torch.round(torch.sqrt(area / aspect))
        top, left = torch.floor(top * (height - h + 1)), torch.floor(left * (width - w + 1))
        block = _between(row, top, h) & _between(column, left, w)
        added = (block & ~mask).sum((1, 2))
        fits = (h < height) & (w < width) & (added > 0) & (added <= remaining)
        accepted = fits & (refused < TRIES) & (remaining > 0)
        mask = mask | (block & accepted[:, None, None])
        count = count + added * accepted
        refused = torch.where(accepted, 0, refused + (refused < TRIES))
    return mask


def _between(place: Tensor, start: Tensor, length: Tensor) -> Tensor:
    start = start[:, None, None]
    return (place >= start) & (place < start + length[:, None, None])
