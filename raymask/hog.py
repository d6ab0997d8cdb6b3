"""Histograms of oriented gradients as regression targets, on the images' device (DMJD's "superior target").

The gradients of 8-bit images are integers, and among integers up to 255 none lies on a bin edge but the
horizontal: comparing with the edges' directions gives the exact bin without an arc tangent.
"""

from math import cos, pi, sin

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

# b: images   h, w: pixels   r, c: rows and columns of cells   n: patches   d: length of a target

BINS = 9  # unsigned orientations of 20 degrees


def hog_cells(images: UInt8[Tensor, "b 3 h w"], cell: int = 8) -> Float[Tensor, "b 3 r c 9"]:
    """Mean gradient magnitude by orientation in every cell and colour channel, float32.

    Centred differences without halving, zero at the borders; hard votes; no interpolation, window or block
    norm.
    """
    pixels = images.float()
    down, right = torch.zeros_like(pixels), torch.zeros_like(pixels)
    down[:, :, 1:-1] = pixels[:, :, 2:] - pixels[:, :, :-2]
    right[:, :, :, 1:-1] = pixels[:, :, :, 2:] - pixels[:, :, :, :-2]
    magnitude, bins = torch.hypot(down, right), orientations(down, right)
    # One pass a bin: a one-hot tensor of all pixels would need 72 bytes for each.
    return torch.stack([F.avg_pool2d(magnitude * (bins == k), cell) for k in range(BINS)], dim=-1)


def orientations(down: Float[Tensor, "*pixels"], right: Float[Tensor, "*pixels"]) -> UInt8[Tensor, "*pixels"]:
    """The bin of an integer gradient's angle: floor(atan2(down, right) modulo 180 / 20); flat is 8."""
    # Gradients of the lower half plane are turned by 180 degrees; a horizontal one is 0 degrees either way.
    turned = torch.where(down < 0, -right, torch.where(down == 0, right.abs(), right))
    down = down.abs()
    bins = torch.zeros_like(down, dtype=torch.uint8)
    for edge in (pi * k / BINS for k in range(1, BINS)):
        bins += down * cos(edge) >= turned * sin(
            edge
        )  # the gradient lies to the left of the edge's direction
    return bins


def hog_target(images: UInt8[Tensor, "b 3 h w"], patch: int = 16, cell: int = 8) -> Float[Tensor, "b n d"]:
    """The whitened histograms of each patch's cells: (patch / cell)**2 * 9 * 3, ordered cell, bin, channel.

    Whitening is a layer norm over the 9 bins without parameters, so that a flat cell gives zeros.
    """
    if patch % cell:
        raise ValueError(
            f"HOG cells of {cell} pixels do not tile patches of {patch}: choose a cell that divides it"
        )
    cells = F.layer_norm(hog_cells(images, cell), (BINS,))
    k = patch // cell
    b, channels, rows, columns, bins = cells.shape
    cells = cells.view(b, channels, rows // k, k, columns // k, k, bins)
    return cells.permute(0, 2, 4, 3, 5, 6, 1).reshape(b, (rows // k) * (columns // k), -1)
