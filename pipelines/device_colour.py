"""Colours of many crops at once, with what was drawn for each: `pipelines.colour` and `.blur` in torch.

Every operation leaves whole levels, as on the CPU. The part of the jitter that is not linear, the hue, is
computed once: what was drawn before it is done before, what was drawn after it is done after.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor

from pipelines.device_crops import field
from pipelines.draws import BRIGHTNESS, CONTRAST, HUE, NEVER, SATURATION

# x: levels of red, green and blue, whole numbers in 0..255   r: crops   n, m: sides

Hue = Literal["hsv", "linear"]

_LUMA = (0.299, 0.587, 0.114)


def _each(values: Tensor) -> Tensor:
    """[r] beside [r, 3, n, m]."""
    return values[:, None, None, None]


def _grey(x: Float32[Tensor, "r 3 n m"]) -> Float32[Tensor, "r 1 n m"]:
    red, green, blue = x.split(1, dim=1)
    return (_LUMA[0] * red + _LUMA[1] * green + _LUMA[2] * blue + 0.5).floor()


def _blend(x: Tensor, part: Tensor, views: Tensor) -> Tensor:
    """Brightness, contrast or saturation, as `part` [r] says; any other part changes nothing."""
    factor = torch.ones_like(part, dtype=x.dtype)
    for number, name in ((BRIGHTNESS, "brightness"), (CONTRAST, "contrast"), (SATURATION, "saturation")):
        factor = torch.where(part == number, field(views, name), factor)
    grey = _grey(x)
    mean = (grey.mean((2, 3), keepdim=True) + 0.5).floor()
    part, factor = _each(part), _each(factor)
    base = torch.where(part == SATURATION, grey, torch.where(part == CONTRAST, mean, torch.zeros_like(mean)))
    # Levels fall to the whole one below; a factor of 1 leaves them as they are.
    return torch.where(factor == 1, x, (base + factor * (x - base)).clamp(0, 255).floor())


def _hsv_hue(x: Float32[Tensor, "r 3 n m"], shift: Float32[Tensor, " r"]) -> Float32[Tensor, "r 3 n m"]:
    """Turns the hue through HSV of 256 levels, as Pillow does."""
    red, green, blue = x.split(1, dim=1)
    value, low = x.amax(1, keepdim=True), x.amin(1, keepdim=True)
    span = value - low
    narrow = 1 / span.clamp(min=1)
    sixths = torch.where(
        value == red,
        (green - blue) * narrow,
        torch.where(value == green, 2 + (blue - red) * narrow, 4 + (red - green) * narrow),
    )
    turns = torch.where(sixths < 0, sixths + 6, sixths) / 6
    turn = _each((shift.double() * 255).trunc().float())
    hue = ((turns * 255).floor() + turn).remainder(256) * (6 / 255)
    chroma = (span / value.clamp(min=1) * 255).floor() * (value / 255)
    peaks = torch.tensor([5.0, 3.0, 1.0], device=x.device)[:, None, None]
    place = (hue + peaks).remainder(6)
    missing = torch.minimum(place, 4 - place).clamp(0, 1)
    return (value - chroma * missing + 0.5).floor()


def _linear_hue(x: Float32[Tensor, "r 3 n m"], shift: Float32[Tensor, " r"]) -> Float32[Tensor, "r 3 n m"]:
    """Turns the two chromas of YIQ: one 3 x 3 matrix a crop, not the hue of HSV."""
    to_yiq = torch.tensor([_LUMA, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)], device=x.device)
    angle = shift * (2 * math.pi)
    zero, cos, sin = torch.zeros_like(angle), angle.cos(), angle.sin()
    turn = torch.stack([zero + 1, zero, zero, zero, cos, sin, zero, -sin, cos], dim=1).unflatten(1, (3, 3))
    matrix = torch.linalg.inv(to_yiq) @ turn @ to_yiq
    return ((matrix @ x.flatten(2)).unflatten(2, x.shape[2:]) + 0.5).clamp(0, 255).floor()


def _jitter(x: Tensor, views: Tensor, hue: Hue) -> Tensor:
    """The four parts in the drawn order; crops without jitter stay as they are."""
    order = field(views, "order")
    none = order < 0
    digits = [(order.clamp(min=0) / 4**place).floor() % 4 for place in range(4)]
    at_hue = sum(place * (digit == HUE) for place, digit in enumerate(digits))
    nothing = torch.full_like(order, HUE)
    for place in range(3):
        x = _blend(x, torch.where(none | (at_hue <= place), nothing, digits[place]), views)
    turned = (_hsv_hue if hue == "hsv" else _linear_hue)(x, field(views, "hue"))
    x = torch.where(_each(none), x, turned)
    for place in range(1, 4):
        x = _blend(x, torch.where(none | (at_hue >= place), nothing, digits[place]), views)
    return x


def _blur_matrix(sigma: Float32[Tensor, " r"], count: int) -> Float32[Tensor, "r n n"]:
    """Pillow's three boxes (see `pipelines.blur`) as a matrix; the identity where sigma is 0."""
    variance = sigma.double().square() / 3
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    places = torch.arange(count, device=sigma.device, dtype=torch.float64)
    # An output takes from places that lie beyond an edge what that edge holds.
    reach = places[:, None] - places[None]
    inside = (whole[:, None, None] + share[:, None, None] + 1 - reach.abs()).clamp(0, 1)
    inside = torch.where(reach.abs() <= whole[:, None, None], torch.ones_like(inside), inside)
    inside = torch.where(reach.abs() > whole[:, None, None] + 1, torch.zeros_like(inside), inside)
    width = (2 * (whole + share) + 1)[:, None]
    one = inside / width[..., None]
    below = _beyond(places[None], whole[:, None], share[:, None]) / width
    one[..., 0] += below
    one[..., -1] += below.flip(1)
    return (one @ one @ one).float()


def _beyond(places: Tensor, whole: Tensor, share: Tensor) -> Tensor:
    """How much of a box around each place lies before the first one."""
    return (whole - places).clamp(min=0) + torch.where(whole + 1 > places, share, torch.zeros_like(share))


def colour(
    x: Float32[Tensor, "r 3 n m"], views: Float32[Tensor, "r f"], *, hue: Hue, blurs: bool
) -> Float32[Tensor, "r 3 n m"]:
    """What is drawn for the colours, done to whole levels; `blurs` False leaves the blur out altogether."""
    x = _jitter(x, views, hue)
    x = torch.where(_each(field(views, "grey") > 0), _grey(x), x)
    if blurs:
        sigma = field(views, "sigma")
        down, across = (_blur_matrix(sigma, side)[:, None] for side in x.shape[2:])
        blurred = ((down @ (x @ across.mT) + 0.5).clamp(0, 255)).floor()
        x = torch.where(_each(sigma > 0), blurred, x)
    threshold = _each(field(views, "threshold"))
    return torch.where((threshold < NEVER) & (x >= threshold), 255 - x, x)
