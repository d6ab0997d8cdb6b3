"""DINO's augmentation: the official views of an image, rendered from the operations that were drawn for them.

Tolerances. The official pixels come from Pillow, which rounds to whole levels after each pass of its resize
(and from 13 on resizes rows before columns where rows shrink much more) and of its blur. `pipelines.render`
has the same kernels but rounds once after the resize and once a direction of the blur. So each view is held
to 1.5 levels on average, where another resize is off by 2 (the other bicubic) to 5 (bilinear), to 48 levels
at its worst value, and the mean and deviation of the normalised view to 1e-2. Of 900 other views that Pillow
drew of photos and of the case's image the largest were 0.94 and 31 levels, and 0.005: a change of hue, which
Pillow makes in 8 bits of it, turns a level lost before into several. The quantiles of crop areas and aspects
come from other random numbers: 0.02, as the case says; with 20,000 draws our own noise is well below that.
"""

import numpy as np
import torch

from pipelines import draws
from pipelines.crops import Crops, MultiCrop
from pipelines.draws import VIEW, rules
from pipelines.native import native
from pipelines.render import normalisation
from pipelines.streams import fold, stream
from tests.golden.cases import Case, Deviation, compare, replays

MEAN_LEVELS, WORST_LEVEL, STATISTICS, QUANTILES = 1.5, 48.0, 1e-2, 0.02
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


@replays("dino/augment")
def augment(case: Case) -> list[Deviation]:
    """Every view of the case by the code that training uses, and the distribution of crops."""
    hyper = case.meta["hyper"]
    image = case["image"].numpy()
    pixels = np.ascontiguousarray(image.transpose(1, 2, 0))
    pixels.flags.writeable = False  # as decoded ones, for which the kernels are compiled
    crops = MultiCrop(mean=tuple(hyper["mean"]), std=tuple(hyper["std"]))
    found = []
    for name, operations in case.meta["ops"]:
        view, (height, width) = _view(operations)
        levels, normal = np.empty((3, height, width), np.uint8), np.empty((3, height, width), np.float32)
        native().view(pixels, view[()], normalisation(crops), levels, normal)
        off = (torch.from_numpy(levels).double() - case[f"view_{name}_uint8"].double()).abs()
        found.append(Deviation(f"{name}: mean levels", float(off.mean()), MEAN_LEVELS))
        found.append(Deviation(f"{name}: worst level", float(off.max()), WORST_LEVEL))
        if f"view_{name}_mean_std" in case.tensors:
            got = torch.from_numpy(np.stack([normal.mean((1, 2)), normal.std((1, 2))]))
            found.append(compare(f"{name}: mean, std", got, case[f"view_{name}_mean_std"], STATISTICS))
    aspect = tuple(hyper["rrc_ratio"])
    for row, group in enumerate(("global", "global", "local")):
        settings = Crops(scale=tuple(hyper[f"{group}_crops_scale"]), aspect=aspect)
        got = _quantiles(settings, *image.shape[1:])
        found.append(
            compare(f"{group} crops: quantiles", got, case["rrc_area_aspect_quantiles"][row], QUANTILES)
        )
    return found
