"""Learned positions at sizes other than the native one, by DINO's rule.

DINO resamples the table bicubically with `scale_factor = (new + 0.1) / native` and lets the factor itself set the
sampling grid, so the grid is shifted against one asked for by output size (by up to 0.06 in the values): weights
trained by one rule are wrong under the other.
"""

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

# n: native patches   m: patches of this grid   d: width of a token

Grid = tuple[int, int]


@torch.compiler.assume_constant_result
@lru_cache(maxsize=32)
def resampling(native: Grid, grid: Grid, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "m n"]:
    """The matrix that takes a table of positions from the native grid to another one.

    Bicubic resampling is linear, so a matrix says the same as `interpolate`; its gradient is a matrix product, which
    is deterministic on every device where the gradient of `interpolate` is not.
    """
    rows, columns = native
    units = torch.eye(rows * columns, dtype=torch.float64).reshape(1, -1, rows, columns)
    factor = ((grid[0] + 0.1) / rows, (grid[1] + 0.1) / columns)
    moved = interpolate(units, scale_factor=factor, mode="bicubic", align_corners=False)
    assert moved.shape[-2:] == grid, (native, grid, moved.shape)
    return moved.flatten(2)[0].T.contiguous().to(device, dtype)


def resample(positions: Float[Tensor, "n d"], native: Grid, grid: Grid) -> Float[Tensor, "m d"]:
    """The positions of `grid`; untouched at the native grid."""
    if grid == native:
        return positions
    with torch.autocast(positions.device.type, enabled=False):  # bf16 would round the table
        return resampling(native, grid, positions.device, positions.dtype) @ positions
