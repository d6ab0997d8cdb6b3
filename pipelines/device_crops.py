"""Crops as matrices: antialiased bicubic resizing and flipping of whole pictures, two products a crop.

A crop is `down @ picture @ across.T`. The weights are those of `pipelines.kernels` (Pillow's), dense over the
canvas, zero outside the crop; over chroma they include libjpeg's triangle from half to full resolution.

All pictures of a batch have canvases of one shape, so its largest sides set the memory of all: pictures above
`LARGEST_SIDE` never come here, the loader cuts them. A batch takes at most 25 MB of canvases an image.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from pipelines.raw import FIELDS

# b: pictures   v: views   n, m: sides of a view   h, w: sides of the canvas   p: pixels of one axis of it

BUCKET = 128  # canvases are a multiple of this a side, so that their shapes are few
LARGEST_SIDE = 10 * BUCKET - 2  # pixels: nearly all photographs of ImageNet, and 25 MB for a canvas at most


def field(views: Float32[Tensor, "... f"], name: str) -> Float32[Tensor, "..."]:
    """One of the drawn parameters."""
    return views[..., FIELDS.index(name)]


def _cubic(x: Tensor) -> Tensor:
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def axis_weights(
    start: Float32[Tensor, "b v"], size: Float32[Tensor, "b v"], count: int, canvas: int
) -> Float32[Tensor, "b v n p"]:
    """Weights of `count` outputs over the pixels of an axis, for crops from `start` on; rows sum to 1."""
    pixels = torch.arange(canvas, device=start.device, dtype=torch.float32) + 0.5
    outputs = torch.arange(count, device=start.device, dtype=torch.float32) + 0.5
    scale = (size / count)[..., None, None]
    begin, end = start[..., None, None], (start + size)[..., None, None]
    distance = pixels - (begin + outputs[:, None] * scale)
    weights = _cubic(distance / scale.clamp(min=1))
    weights = weights * ((pixels > begin) & (pixels < end))
    return weights / weights.sum(-1, keepdim=True)


def over_chroma(weights: Float32[Tensor, "b v n p"]) -> Float32[Tensor, "b v n half"]:
    """The same weights over samples of two pixels each, of which a pixel takes 3/4 and 1/4 of the next one.

    Beyond the picture the canvas repeats its last sample; before it, so does the first one here.
    """
    even, odd = weights[..., 0::2], weights[..., 1::2]
    out = 0.75 * (even + odd)
    out[..., :-1] += 0.25 * even[..., 1:]
    out[..., 1:] += 0.25 * odd[..., :-1]
    out[..., 0] += 0.25 * even[..., 0]
    return out


def largest_of(sides: Int64[np.ndarray, "b 2"]) -> tuple[int, int]:
    """The (height, width) that no picture exceeds, of those which are left whole to the device."""
    height, width = sides[sides.max(1) <= LARGEST_SIDE].max(0, initial=1).tolist()
    return height, width


def canvases(
    pixels: UInt8[Tensor, " bytes"],
    starts: Int64[Tensor, " b"],
    sides: Int64[Tensor, "b 2"],
    side: tuple[int, int],
) -> UInt8[Tensor, "b h w"]:
    """Planes that lie end to end, each on a canvas of its own; their last rows and columns are repeated."""
    rows = torch.arange(side[0], device=pixels.device)[None, :, None]
    columns = torch.arange(side[1], device=pixels.device)[None, None, :]
    height, width = sides[:, 0, None, None], sides[:, 1, None, None]
    lines = torch.minimum(rows, height - 1) * width + starts[:, None, None]
    # Of all that is made here only this one has eight bytes a pixel of the canvases.
    return pixels[lines + torch.minimum(columns, width - 1)]


def picture_canvases(
    pixels: UInt8[Tensor, " bytes"],
    starts: Int64[Tensor, " b"],
    sides: Int64[Tensor, "b 2"],
    largest: tuple[int, int],
) -> tuple[UInt8[Tensor, "b h w"], UInt8[Tensor, "b h2 w2"], UInt8[Tensor, "b h2 w2"]]:
    """Luma and both chromas of packed pictures (`raw.RawPictures`)."""
    height, width = (-(-(side + 2) // BUCKET) * BUCKET for side in largest)
    half = (height // 2, width // 2)
    luma, small = sides.prod(1), (sides + 1) // 2
    chroma = small.prod(1)
    return (
        canvases(pixels, starts, sides, (height, width)),
        canvases(pixels, starts + luma, small, half),
        canvases(pixels, starts + luma + chroma, small, half),
    )


def _products(
    down: Float[Tensor, "b v n h"], canvas: Float[Tensor, "b h w"], across: Float[Tensor, "b v m w"]
) -> Float[Tensor, "b v n m"]:
    rows = torch.bmm(down.flatten(1, 2), canvas).unflatten(1, down.shape[1:3])
    return torch.matmul(rows, across.mT)


def cut(
    planes: tuple[UInt8[Tensor, "b h w"], UInt8[Tensor, "b h2 w2"], UInt8[Tensor, "b h2 w2"]],
    views: Float32[Tensor, "b v f"],
    *,
    size: tuple[int, int],
    dtype: torch.dtype,
) -> Float32[Tensor, "v b 3 n m"]:
    """Views of one group as red, green and blue levels, not yet whole ones; products run in `dtype`."""
    luma, *chromas = planes
    flip: Bool[Tensor, "b v"] = field(views, "flip") > 0
    down = axis_weights(field(views, "top"), field(views, "height"), size[0], luma.shape[1])
    across = axis_weights(field(views, "left"), field(views, "width"), size[1], luma.shape[2])
    across = torch.where(flip[..., None, None], across.flip(2), across)
    coarse_down, coarse_across = over_chroma(down).to(dtype), over_chroma(across).to(dtype)
    # Around 0, bfloat16 keeps each level; rows of weights sum to 1, so that the middle comes back unchanged.
    y = _products(down.to(dtype), luma.to(dtype) - 128, across.to(dtype)).float() + 128
    u, v = (_products(coarse_down, chroma.to(dtype) - 128, coarse_across).float() for chroma in chromas)
    rgb = torch.stack([y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u], dim=2)
    return rgb.transpose(0, 1)
