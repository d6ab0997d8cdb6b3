"""Mixup, cutmix and random erasing as DeiT uses them, on the device, with randomness as an argument.

timm's own classes draw from global state; its pure part, the mixed targets, is used as it is.
"""

from math import sqrt
from typing import Annotated

import torch
from jaxtyping import Float, Int
from pydantic import Field
from timm.data.mixup import mixup_target
from torch import Tensor

from pipelines import streams as host
from pipelines.settings import Settings
from raymask.streams import Rng, uniforms

# b: images   h, w: pixels   c: classes

Fraction = Annotated[float, Field(ge=0, le=1)]
ATTEMPTS = 10  # tries at a rectangle that fits, as in timm


class Mixing(Settings):
    """How two images become one. Every image is mixed with its mirror in the order of the batch ("batch"
    mode).

    mixup, cutmix: the a of the Beta(a, a) that the share of the first image is drawn from; 0 leaves it out
    probability: of mixing a batch at all
    switch: of cutmix where both are on
    smoothing: share of the target that is spread over all classes, mixed or not
    """

    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)
    probability: Fraction = 1.0
    switch: Fraction = 0.5
    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def mixes(self) -> bool:
        """Whether images are ever mixed; targets are then rows of probabilities."""
        return self.probability > 0 and (self.mixup > 0 or self.cutmix > 0)


class Erasing(Settings):
    """Random erasing: one rectangle of an image becomes noise, a normal draw for every value.

    probability: share of the images; 0 for none
    area: range of the rectangle's share of the image; aspect: range of its height over width, drawn
    log-uniformly
    """

    probability: Fraction = 0.0
    area: tuple[Fraction, Fraction] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)


def mix(
    images: Float[Tensor, "b 3 h w"], labels: Int[Tensor, " b"], *, mixing: Mixing, classes: int, rng: Rng
) -> tuple[Float[Tensor, "b 3 h w"], Float[Tensor, "b c"]]:
    """Mixed images and targets. The draws hold for the whole step; partners come from the same call."""
    apply, switch, row, column = rng.per_step("mix", 4)
    if apply >= mixing.probability:
        return images, mixup_target(labels, classes, 1.0, mixing.smoothing)
    cut = mixing.cutmix > 0 and (mixing.mixup == 0 or switch < mixing.switch)
    # Beta variates need a bulk generator; it is keyed like every other draw.
    shape = mixing.cutmix if cut else mixing.mixup
    share = float(host.generator(host.stream(rng.seed, "mix_share", rng.step)).beta(shape, shape))
    if cut:
        images, share = cut_in(images, images.flip(0), share=share, centre=(row, column))
    else:
        images = share * images + (1 - share) * images.flip(0)
    return images, mixup_target(labels, classes, share, mixing.smoothing)


def cut_in(
    images: Float[Tensor, "b 3 h w"],
    others: Float[Tensor, "b 3 h w"],
    *,
    share: float,
    centre: tuple[float, float],
) -> tuple[Float[Tensor, "b 3 h w"], float]:
    """`images` with one box of `others` in them, and the share that is truly left of `images`.

    The box has the image's shape and 1 - share of its area before it is cut off at the border; `centre` is
    its middle in fractions of height and width, each in [0, 1).
    """
    height, width = images.shape[-2:]
    (top, bottom), (left, right) = (_span(size, share, at) for size, at in zip((height, width), centre))
    mixed = images.clone()
    mixed[..., top:bottom, left:right] = others[..., top:bottom, left:right]
    return mixed, 1 - (bottom - top) * (right - left) / (height * width)


def _span(size: int, share: float, at: float) -> tuple[int, int]:
    """Where the box begins and ends on one axis, as in timm since 1.0.31 (`rand_bbox`).

    Older releases, and so the papers' runs, leave out the last row and column of a box of odd length.
    """
    length, middle = int(size * sqrt(1 - share)), int(at * size)
    return max(0, middle - length // 2), min(size, middle + (length + 1) // 2)


def erase(
    images: Float[Tensor, "b 3 h w"], keys: Int[Tensor, " b"], *, erasing: Erasing
) -> Float[Tensor, "b 3 h w"]:
    """Images of which a share has one rectangle of noise; a pure function of each image's own key."""
    channels, height, width = images.shape[1:]
    draws = uniforms(keys, 1 + 4 * ATTEMPTS)
    area, aspect, top, left = draws[:, 1:].unflatten(1, (ATTEMPTS, 4)).unbind(2)
    low, high = (torch.log(torch.tensor(a)).item() for a in erasing.aspect)
    side = ((erasing.area[0] + area * (erasing.area[1] - erasing.area[0])) * height * width).sqrt()
    stretch = torch.exp((low + aspect * (high - low)) / 2)
    tall, wide = (side * stretch).round(), (side / stretch).round()
    fits = (tall < height) & (wide < width)
    first = fits.to(torch.uint8).argmax(1, keepdim=True)
    tall, wide, top, left = (x.gather(1, first)[:, :, None] for x in (tall, wide, top, left))
    chosen = (draws[:, :1] < erasing.probability) & fits.any(1, keepdim=True)
    rows = _inside(height, top * (height - tall + 1), tall)[:, :, :, None]
    columns = _inside(width, left * (width - wide + 1), wide)[:, :, None, :]
    noise = torch.special.ndtri(uniforms(keys ^ 1, channels * height * width).clamp(min=1e-12))
    noise = noise.view_as(images).to(images.dtype)
    return torch.where(rows & columns & chosen[:, :, None, None], noise, images)


def _inside(size: int, start: Float[Tensor, "b 1 1"], length: Float[Tensor, "b 1 1"]) -> Tensor:
    places = torch.arange(size, device=start.device)
    return (places >= start.floor()) & (places < start.floor() + length)
