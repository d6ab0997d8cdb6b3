"""One function hides the right number of patches, whatever ranked them.

Masks are bool, True = hidden. Where tokens are dropped every row hides the same count, so shapes are static.
"""

from math import ceil

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

# b: rows   n: patches   k: visible patches   p: height of an image   q: width of an image


def hidden_count(ratio: float, patches: int) -> int:
    """How many of `patches` a ratio hides: truncated, as the official code does."""
    return int(patches * ratio)


def least_share(patches: int) -> float:
    """About the smallest share that holds one of `patches`, rounded up to four digits for people."""
    return ceil(1e4 / patches) / 1e4


def hide_top(scores: Float[Tensor, "b n"], count: int | Int[Tensor, " b"]) -> Bool[Tensor, "b n"]:
    """Hides the `count` highest scores of each row, one count or one a row; ties go to the lowest index."""
    patches = scores.shape[-1]
    if isinstance(count, int) and not 0 <= count <= patches:
        raise ValueError(f"cannot hide {count} of {patches} patches")
    order = scores.argsort(dim=-1, descending=True, stable=True)
    limit = count if isinstance(count, int) else count[:, None]
    first = (torch.arange(patches, device=scores.device) < limit).expand_as(order)
    return torch.zeros_like(scores, dtype=torch.bool).scatter(-1, order, first)


def some_rows(
    hidden: Bool[Tensor, "b n"], draws: Float[Tensor, "b 1"], probability: float
) -> Bool[Tensor, "b n"]:
    """The masks of the rows whose draw is not above `probability`; nothing is hidden in the others."""
    return hidden & (draws <= probability)


def visible_indices(hidden: Bool[Tensor, "*b n"], count: int) -> Int[Tensor, "*b k"]:
    """The indices of the patches that are not hidden, ascending, where each row hides `count`."""
    order = hidden.to(torch.uint8).argsort(dim=-1, stable=True)
    return order[..., : hidden.shape[-1] - count]


def hide_pixels(
    images: Float[Tensor, "b channels p q"], hidden: Bool[Tensor, "b n"], patch_size: tuple[int, int]
) -> Float[Tensor, "b channels p q"]:
    """The images with the pixels of hidden patches at 0 (of a normalised image: the mean colour)."""
    rows, columns = images.shape[-2] // patch_size[0], images.shape[-1] // patch_size[1]
    grid = hidden.reshape(-1, 1, rows, 1, columns, 1)
    cut = images.reshape(*images.shape[:2], rows, patch_size[0], columns, patch_size[1])
    return cut.masked_fill(grid, 0).reshape(images.shape)
