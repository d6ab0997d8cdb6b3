"""A fingerprint of masks, to tell whether two runs hid the same patches."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from raymask.streams import fold, mix

# b: images   n: patches


def mask_signature(
    hidden: Bool[Tensor, "b n"], epochs: Int[Tensor, " b"], samples: Int[Tensor, " b"], view: int = 0
) -> Int[Tensor, ""]:
    """A 64-bit sum over images, the same in whatever order, chunk or rank they come, on their device."""
    places = mix(torch.arange(1, hidden.shape[-1] + 1, device=hidden.device))
    rows = (hidden * places).sum(dim=-1)
    owners = fold(fold(torch.full_like(samples, view), epochs), samples)
    return mix(owners ^ mix(rows)).sum()
