"""The pictures that are evaluated: a centre crop, or the probe's random crop and flip."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipelines.streams import generator, stream
from raymask.evaluate.settings import Evaluate

if TYPE_CHECKING:
    from pipelines.source import Source

# b: images   s: shape.size


@dataclass(frozen=True)
class Shape:
    """The shorter side goes to `resize` pixels (bicubic), the crop is `size` x `size`."""

    size: int
    resize: int


def shape(settings: Evaluate, *, native: int | tuple[int, int]) -> Shape:
    """The evaluated shape for a backbone of `native` pixels (of a rectangle, the shorter side).

    Raises ValueError for a crop that does not fit.
    """
    size = settings.size or (native if isinstance(native, int) else min(native))
    resize = settings.resize or round(size * 256 / 224)
    if resize < size:
        raise ValueError(
            f"evaluate.resize={resize} is smaller than the evaluated crop of {size} pixels; "
            f"give at least {size}"
        )
    return Shape(size, resize)


def centre(source: "Source", samples: np.ndarray, *, shape: Shape) -> Float[Tensor, "b 3 s s"]:
    """The centre crops of the samples, normalised."""
    from pipelines.loader import evaluation_images

    return torch.as_tensor(evaluation_images(source, samples, shape.size, shape.resize))


def augmented(
    source: "Source", samples: np.ndarray, *, shape: Shape, seed: int, view: int
) -> Float[Tensor, "b 3 s s"]:
    """A random resized crop (area 0.08 to 1, aspect 3/4 to 4/3) and flip of each image's `resize` square.

    Keyed by (seed, view, sample). Departure from the official probe: it crops the whole picture.
    """
    squares = centre(source, samples, shape=Shape(shape.resize, shape.resize))
    keys = [stream(seed, "probe_crop", view, int(sample)) for sample in samples]
    return torch.stack([_crop(square, shape.size, generator(key)) for square, key in zip(squares, keys)])


def _crop(square: Float[Tensor, "3 h w"], size: int, rng: np.random.Generator) -> Float[Tensor, "3 s s"]:
    side = square.shape[-1]
    area, aspect = side * side * rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height, width = (int(np.clip(round(np.sqrt(a)), 1, side)) for a in (area / aspect, area * aspect))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    crop = square[None, :, top : top + height, left : left + width]
    crop = torch.nn.functional.interpolate(crop, size=(size, size), mode="bicubic", antialias=True)[0]
    return crop.flip(-1) if rng.random() < 0.5 else crop
