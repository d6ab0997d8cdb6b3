"""What is cut from an image, and how it is changed: the settings of multi-crop augmentation.

The defaults are DINO's (arXiv:2104.14294 and its released code). Drawing is in `draws.py`, pixels are in
`render.py`.
"""

from typing import Literal

from pydantic import Field, model_validator

from pipelines.settings import Settings

Probability = float | tuple[float, ...]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class RandAugment(Settings):
    """Operations drawn at random, of timm's increasing ranges; the defaults are DeiT's rand-m9-mstd0.5-inc1.

    operations: how many are drawn for a view, one after the other, perhaps the same again
    magnitude, spread: strength, normally distributed and held within 0..10
    probability: that a drawn operation happens
    interpolation: where pixels move; DeiT trains with bicubic, timm by itself takes either
    """

    operations: int = Field(default=2, ge=1)
    magnitude: float = Field(default=9.0, ge=0, le=10)
    spread: float = Field(default=0.5, ge=0)
    probability: float = Field(default=0.5, ge=0, le=1)
    interpolation: Literal["bicubic", "bilinear", "random"] = "bicubic"


class Crops(Settings):
    """One group of views: random resized crops of equal size, flipped, augmented, jittered, greyed, blurred,
    solarised.

    count: views of each image; 0 leaves the group out
    size: pixels of a side, or (height, width)
    scale: range of a crop's share of the image area
    aspect: range of a crop's width over height, drawn log-uniformly
    flip: probability of a horizontal flip
    randaugment: operations of RandAugment after the flip, or none
    jitter: probability that brightness, contrast, saturation and hue change, in a random order
    brightness, contrast, saturation: factors are uniform in [max(0, 1 - x), 1 + x]
    hue: shift uniform in [-x, x], in turns of the colour circle (at most 0.5)
    grey: probability of losing all colour
    blur: probability of a Gaussian blur, one for all views or one for each
    blur_sigma: range of the blur's standard deviation, in pixels of the crop
    solarise: probability of inverting levels at or above the threshold, one for all views or one for each
    solarise_threshold: level in 0..256
    """

    count: int = Field(default=2, ge=0)
    size: int | tuple[int, int] = 224
    scale: tuple[float, float] = (0.4, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    randaugment: RandAugment | None = None
    jitter: float = 0.8
    brightness: float = Field(default=0.4, ge=0)
    contrast: float = Field(default=0.4, ge=0)
    saturation: float = Field(default=0.2, ge=0)
    hue: float = Field(default=0.1, ge=0, le=0.5)
    grey: float = 0.2
    blur: Probability = (1.0, 0.1)
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarise: Probability = (0.0, 0.2)
    solarise_threshold: int = Field(default=128, ge=0, le=256)

    @property
    def height(self) -> int:
        """Pixels of a view's vertical side."""
        return self.size if isinstance(self.size, int) else self.size[0]

    @property
    def width(self) -> int:
        """Pixels of a view's horizontal side."""
        return self.size if isinstance(self.size, int) else self.size[1]

    def per_view(self, name: Literal["blur", "solarise"]) -> tuple[float, ...]:
        """The probability `name` of each view."""
        value = getattr(self, name)
        return (value,) * self.count if isinstance(value, float) else value

    @model_validator(mode="after")
    def _is_possible(self) -> "Crops":
        if min(self.height, self.width) < 1:
            raise ValueError(f"size is {self.size}: a crop needs at least one pixel a side")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(f"scale is {self.scale}: give (low, high) with 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1]:
            raise ValueError(f"aspect is {self.aspect}: give (low, high) with 0 < low <= high")
        if not 0 <= self.blur_sigma[0] <= self.blur_sigma[1]:
            raise ValueError(f"blur_sigma is {self.blur_sigma}: give (low, high) with 0 <= low <= high")
        for name in ("flip", "jitter", "grey", "blur", "solarise"):
            value = getattr(self, name)
            values = value if isinstance(value, tuple) else (value,)
            if not all(0 <= v <= 1 for v in values):
                raise ValueError(f"{name} is {value}: a probability lies between 0 and 1")
            if isinstance(value, tuple) and len(value) != self.count and self.count:
                raise ValueError(
                    f"{name} has {len(value)} probabilities for {self.count} views: give one for each view, "
                    "or a single number for all"
                )
        return self


class LocalCrops(Crops):
    """Small views of small parts of the image: the same fields with DINO's defaults for local crops."""

    count: int = Field(default=8, ge=0)
    size: int | tuple[int, int] = 96
    scale: tuple[float, float] = (0.05, 0.4)
    blur: Probability = 0.5
    solarise: Probability = 0.0


class MultiCrop(Settings):
    """Global and local views of each image, as levels minus `mean` over `std` (of levels in 0..1).

    A recipe with a single plain view sets `global_crops` to count 1 with jitter, grey, blur and solarise 0,
    and the count of `local_crops` to 0.
    """

    kind: Literal["multicrop"] = "multicrop"
    global_crops: Crops = Crops()
    local_crops: LocalCrops = LocalCrops()
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def groups(self) -> dict[str, Crops]:
        """The groups that have views, by the names that a Batch gives them."""
        named = {"global": self.global_crops, "local": self.local_crops}
        return {name: crops for name, crops in named.items() if crops.count}

    @model_validator(mode="after")
    def _has_views(self) -> "MultiCrop":
        if not self.global_crops.count:
            raise ValueError("global_crops.count is 0: at least one global view is needed")
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}: each must be above 0")
        return self
