"""DINO's augmentation: the official views of an image, rendered from the operations that were drawn for them.

The official pixels come from Pillow. Ours are held to them step by step, each step on Pillow's own input, and
from end to end; levels on average and at worst. In brackets the largest of 1,300 views that Pillow drew of
photos, noise and the case's image (other resizes are off by 2, the other bicubic, to 5, bilinear):

- the crop resized: 0.4 and 32 (0.29 and 23). Pillow rounds to whole levels, and cuts overshoot off, between
  rows and columns; ours once, at the end.
- colours and solarising on Pillow's crop, with Pillow's blur between them where there is one: 0.05 and 16
  (0.037 and 10). A change of hue is made in 8 bits of it.
- the blur: 1.0 and 32 (0.92 and 25). Pillow's is three box filters a direction, each of which rounds to whole
  levels and repeats the edge anew; repeating that rounding gives Pillow's levels exactly, and without it the
  same boxes are 0.3 to 0.6 levels from Pillow. Ours rounds once a direction.
- end to end: 1.25 and 40 (1.16 and 31): hue and contrast stretch what the resize differs by. The mean and the
  deviation of the normalised view: 1e-2 (0.005).

The quantiles of crop areas and aspects come from other random numbers: 0.02, as the case says; with 20,000
draws our own noise is well below that.
"""

import numpy as np
import torch
from PIL import Image, ImageFilter

from pipelines import draws
from pipelines.crops import Crops, MultiCrop
from pipelines.draws import VIEW, rules
from pipelines.native import native
from pipelines.render import normalisation
from pipelines.streams import fold, stream
from tests.golden.cases import Case, Deviation, compare, replays

# Levels on average and at worst.
LIMITS = {"crop": (0.4, 32.0), "colours": (0.05, 16.0), "blur": (1.0, 32.0), "end to end": (1.25, 40.0)}
STATISTICS, QUANTILES = 1e-2, 0.02
IMAGENET = normalisation(MultiCrop())
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
DRAWS = 20_000

PARTS = {
    "adjust_brightness": ("brightness", draws.BRIGHTNESS),
    "adjust_contrast": ("contrast", draws.CONTRAST),
    "adjust_saturation": ("saturation", draws.SATURATION),
    "adjust_hue": ("hue", draws.HUE),
}


def _view(operations: list) -> tuple[np.ndarray, tuple[int, int]]:
    """The drawn parameters of one view, as the loader would have drawn them, and its size."""
    view = np.zeros((), VIEW)
    view["threshold"], view["order"] = draws.NEVER, -1
    size, order = (0, 0), []
    for name, *values in operations:
        if name == "resized_crop":
            *box, size, _ = values
            view["top"], view["left"], view["height"], view["width"] = box
        elif name == "hflip":
            view["flip"] = 1
        elif name in PARTS:
            field, part = PARTS[name]
            view[field] = values[0]
            order.append(part)
        elif name in ("to_grayscale", "rgb_to_grayscale"):
            view["grey"] = 1
        elif name == "GaussianBlur":
            view["sigma"] = values[0]
        elif name == "solarize":
            view["threshold"] = values[0]
        else:
            raise ValueError(f"the view has an operation {name!r} that this replay does not know")
    if order:
        assert len(order) == 4, order
        view["order"] = sum(part * 4**place for place, part in enumerate(order))
    return view, tuple(size)


def _quantiles(crops: Crops, height: int, width: int) -> torch.Tensor:
    """Quantiles of (share of the area, width over height) over many draws: [5, 2]."""
    table, views = rules(crops)[:1], np.zeros(DRAWS, VIEW)
    key = stream(0, "golden")
    for i in range(DRAWS):
        native().draw(np.uint64(fold(key, np.uint64(i))), height, width, table, views[i : i + 1])
    sides = views["height"].astype(float), views["width"].astype(float)
    drawn = np.stack([sides[0] * sides[1] / (height * width), sides[1] / sides[0]])
    return torch.from_numpy(np.quantile(drawn, SHARES, axis=1))


def _rendered(
    pixels: np.ndarray, view: np.ndarray, size: tuple[int, int], affine: np.ndarray = IMAGENET
) -> tuple[np.ndarray, np.ndarray]:
    """Our levels [3, h, w] of a view of pixels [H, W, 3], and the view normalised by `affine`."""
    pixels = np.ascontiguousarray(pixels)
    pixels.flags.writeable = False  # as decoded ones, for which the kernels are compiled
    levels, normal = np.empty((3, *size), np.uint8), np.empty((3, *size), np.float32)
    native().view(pixels, view[()], affine, levels, normal)
    return levels, normal


def _plain(view: np.ndarray, **changes: float) -> np.ndarray:
    """The same crop, but for `changes` with its colours as they are."""
    found = view.copy()
    found["order"], found["grey"], found["sigma"], found["threshold"] = -1, 0, 0, draws.NEVER
    for name, value in changes.items():
        found[name] = value
    return found


def _pillows_crop(pixels: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    top, left, height, width = (int(view[name]) for name in ("top", "left", "height", "width"))
    cut = Image.fromarray(pixels).crop((left, top, left + width, top + height))
    cut = cut.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(cut.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view["flip"] else cut)


def _steps(pixels: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """What our code makes of each step, given Pillow's pixels for the steps before it: levels [3, h, w]."""
    crop = _pillows_crop(pixels, view, size)
    given = view.copy()  # the same colours of the whole of Pillow's crop
    given["top"], given["left"], given["flip"], given["height"], given["width"] = 0, 0, 0, *size
    found = {"end to end": _rendered(pixels, view, size)[0]}
    if view["sigma"] <= 0:
        return found | {"colours": _rendered(crop, given, size)[0]}
    before = given.copy()
    before["sigma"], before["threshold"] = 0, draws.NEVER
    coloured = Image.fromarray(_rendered(crop, before, size)[0].transpose(1, 2, 0))
    blurred = np.asarray(coloured.filter(ImageFilter.GaussianBlur(float(view["sigma"]))))
    solarised = _plain(given, threshold=view["threshold"])
    return found | {
        "blur": _rendered(crop, given, size)[0],
        "colours": _rendered(blurred, solarised, size)[0],
    }


@replays("dino/augment")
def augment(case: Case) -> list[Deviation]:
    """Every view of the case by the code that training uses, and the distribution of crops."""
    hyper = case.meta["hyper"]
    pixels = np.ascontiguousarray(case["image"].numpy().transpose(1, 2, 0))
    found = []
    for name, operations in case.meta["ops"]:
        view, size = _view(operations)
        official, crop = case[f"view_{name}_uint8"].numpy(), _pillows_crop(pixels, view, size)
        pairs = {step: (levels, official) for step, levels in _steps(pixels, view, size).items()}
        pairs["crop"] = _rendered(pixels, _plain(view), size)[0], crop.transpose(2, 0, 1)
        for step, (ours, theirs) in pairs.items():
            off = np.abs(ours.astype(float) - theirs)
            found.append(Deviation(f"{name}, {step}: mean levels", float(off.mean()), LIMITS[step][0]))
            found.append(Deviation(f"{name}, {step}: worst level", float(off.max()), LIMITS[step][1]))
        if f"view_{name}_mean_std" in case.tensors:
            colours = normalisation(MultiCrop(mean=tuple(hyper["mean"]), std=tuple(hyper["std"])))
            _, normal = _rendered(pixels, view, size, colours)
            got = torch.from_numpy(np.stack([normal.mean((1, 2)), normal.std((1, 2))]))
            found.append(compare(f"{name}: mean, std", got, case[f"view_{name}_mean_std"], STATISTICS))
    aspect = tuple(hyper["rrc_ratio"])
    for row, group in enumerate(("global", "global", "local")):
        settings = Crops(scale=tuple(hyper[f"{group}_crops_scale"]), aspect=aspect)
        got = _quantiles(settings, *case["image"].shape[1:])
        found.append(
            compare(f"{group} crops: quantiles", got, case["rrc_area_aspect_quantiles"][row], QUANTILES)
        )
    return found
