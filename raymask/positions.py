"""Learned positions at sizes other than the native one, by DINO's rule.

DINO resamples the table bicubically with `scale_factor = (new + 0.1) / native`, and lets the factor itself
set the sampling grid. That grid is shifted against one asked for by output size (by up to 0.06 in the
values), so weights trained by one rule are wrong under the other.

Bicubic resampling is linear and separable, so two small matrices say the same as `interpolate`. Their
gradient is a matrix product, deterministic on a GPU, where the gradient of `interpolate` is not; and they are
made of a dozen tiny operations without a state, which a compiled graph swallows.
"""

import torch
from jaxtyping import Float
from torch import Tensor

# n: native places   m: places asked for   d: width of a token

Grid = tuple[int, int]


def cubic(distance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic kernel with PyTorch's parameter, -0.75."""
    a = -0.75
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))


def axis_matrix(native: int, size: int, device: torch.device) -> Float[Tensor, "{size} {native}"]:
    """What each of `size` places along an axis takes from the `native` ones: float64, rows sum to 1."""
    places = (torch.arange(size, device=device, dtype=torch.float64) + 0.5) * (native / (size + 0.1)) - 0.5
    taps = places.floor()[:, None] + torch.arange(-1, 3, device=device)
    weights = cubic((places[:, None] - taps).abs())
    edge = taps.clamp(0, native - 1)  # beyond the edge its last place repeats
    picks = edge[:, :, None] == torch.arange(native, device=device)
    return (picks * weights[:, :, None]).sum(1)


def resample(positions: Float[Tensor, "n d"], native: Grid, grid: Grid) -> Float[Tensor, "m d"]:
    """The positions of `grid`; untouched at the native grid."""
    if grid == native:
        return positions
    with torch.autocast(positions.device.type, enabled=False):  # bf16 would round the table
        down, across = (axis_matrix(n, m, positions.device).to(positions.dtype) for n, m in zip(native, grid))
        rows = (down @ positions.reshape(native[0], -1)).reshape(grid[0], native[1], -1)
        return (across @ rows).flatten(0, 1)
