"""Fixed sine-cosine positions on a grid, and MAE's rule for reading a table of positions at another size."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import interpolate

# n: native patches   m: rows of a table, patches of another grid   d: width of a token

Grid = tuple[int, int]


def sincos_positions(dim: int, grid: Grid, *, prefix: int = 0) -> Float[Tensor, "m {dim}"]:
    """The float64 table for a grid of (rows, columns), after `prefix` rows of zeros for [CLS] and registers.

    The first half of the channels says the column, the second half the row; each half holds all sines, then
    all cosines, at frequencies 10000**(-4 i / dim) (MAE, arXiv:2111.06377).
    """
    if dim % 4:
        raise ValueError(f"sine-cosine positions need a width that 4 divides, but the width is {dim}")
    frequencies = 10000.0 ** (-torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64) for side in grid), indexing="ij")
    halves = [place.reshape(-1, 1) * frequencies for place in (column, row)]
    table = torch.cat([wave(angles) for angles in halves for wave in (torch.sin, torch.cos)], dim=1)
    return torch.cat([table.new_zeros(prefix, dim), table])


def resized(positions: Float[Tensor, "n d"], native: Grid, grid: Grid) -> Float[Tensor, "m d"]:
    """A table of patch positions at another grid, bicubic between pixel centres (MAE's fine-tuning rule)."""
    if native == grid:
        return positions
    table = positions.T.unflatten(1, native)[None]
    return interpolate(table, size=grid, mode="bicubic", align_corners=False)[0].flatten(1).T
