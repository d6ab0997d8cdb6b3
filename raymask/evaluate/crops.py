"""The linear probe's augmentation: a random resized crop and a flip."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from pipelines.streams import generator, stream

# b: images   s: side of the square   h, w: pixels of the crop


def augmented(
    squares: Float[Tensor, "b 3 s s"],
    samples: Int[Tensor, " b"],
    *,
    size: tuple[int, int],
    seed: int,
    view: int,
) -> Float[Tensor, "b 3 h w"]:
    """A random resized crop (area 0.08 to 1, aspect 3/4 to 4/3) and flip, keyed by (seed, view, sample).

    Departure from the official probe: it crops the whole picture, not its central square.
    """
    keys = [stream(seed, "probe_crop", view, sample) for sample in samples.tolist()]
    return torch.stack([_crop(square, size, generator(key)) for square, key in zip(squares, keys)])


def _crop(
    square: Float[Tensor, "3 s s"], size: tuple[int, int], rng: np.random.Generator
) -> Float[Tensor, "3 h w"]:
    side = square.shape[-1]
    area, aspect = side * side * rng.uniform(0.08, 1), np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
    height, width = (int(np.clip(round(np.sqrt(a)), 1, side)) for a in (area / aspect, area * aspect))
    top, left = int(rng.integers(side - height + 1)), int(rng.integers(side - width + 1))
    crop = square[None, :, top : top + height, left : left + width]
    crop = torch.nn.functional.interpolate(crop, size=size, mode="bicubic", antialias=True)[0]
    return crop.flip(-1) if rng.random() < 0.5 else crop
