"""What a masked network is asked to predict of each patch, and how far off its predictions are."""

from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int, UInt8
from pydantic import Field, PositiveInt
from torch import Tensor
from torch.nn import functional as F

from pipelines.settings import Settings
from raymask.frozen import FrozenNetwork
from raymask.hog import BINS, hog_target
from raymask.schedules import Cosine, Share

# b: images   v: views   h, w: pixels   n: patches   k: visible patches   t: length of a target

Distance = Literal["l2", "smooth_l1"]
Colour = tuple[float, float, float]
SMOOTH_BETA = 2.0  # where smooth-L1 turns from a parabola into a line (released DMJD)


class Hog(Settings):
    """Whitened histograms of oriented gradients of the crop's 8-bit levels.

    cell: pixels of a side of a histogram's cell; must divide the patch size
    """

    kind: Literal["hog"] = "hog"
    cell: PositiveInt = 8

    def width(self, patch: int) -> int:
        """Length of a target; checks that the cells tile a patch."""
        if patch % self.cell:
            raise ValueError(
                f"HOG cells of {self.cell} pixels do not tile patches of {patch} pixels: "
                "set method.target.cell to a divisor of the patch size"
            )
        return (patch // self.cell) ** 2 * BINS * 3

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], patch: int, *, mean: Colour, std: Colour
    ) -> Float[Tensor, "b n t"]:
        """The target of every patch of normalised images."""
        return hog_target(levels(images, mean, std), patch, self.cell)


class Pixels(Settings):
    """The pixels of the normalised image; `normalise` gives each patch zero mean and unit variance (MAE)."""

    kind: Literal["pixels"] = "pixels"
    normalise: bool = True

    def width(self, patch: int) -> int:
        """Length of a target."""
        return patch * patch * 3

    def __call__(
        self, images: Float[Tensor, "b 3 h w"], patch: int, *, mean: Colour, std: Colour
    ) -> Float[Tensor, "b n t"]:
        """The target of every patch of normalised images."""
        patches = patchify(images, patch)
        return normalised(patches) if self.normalise else patches


class Teacher(Settings):
    """Layer-normalised patch tokens of the student's moving average, which sees the whole crop.

    momentum: of the moving average
    """

    kind: Literal["teacher"] = "teacher"
    momentum: Share = Cosine(start=0.996, end=1.0)


class FrozenTeacher(Settings):
    """Layer-normalised patch tokens of a pretrained network, which sees the whole crop."""

    kind: Literal["frozen"] = "frozen"
    network: FrozenNetwork = FrozenNetwork()


Target = Annotated[Hog | Pixels | Teacher | FrozenTeacher, Field(discriminator="kind")]


def levels(images: Float[Tensor, "b 3 h w"], mean: Colour, std: Colour) -> UInt8[Tensor, "b 3 h w"]:
    """The 8-bit image that a normalised one stands for: exact where it came from levels, else the nearest."""
    shape = (1, 3, 1, 1)
    mean_, std_ = (torch.tensor(c, device=images.device).view(shape) for c in (mean, std))
    return ((images.float() * std_ + mean_) * 255).round_().clamp_(0, 255).to(torch.uint8)


def patchify(images: Float[Tensor, "b 3 h w"], patch: int) -> Float[Tensor, "b n t"]:
    """The pixels of each patch, ordered row, column, channel."""
    b, channels, height, width = images.shape
    cut = images.reshape(b, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def normalised(patches: Float[Tensor, "b n t"]) -> Float[Tensor, "b n t"]:
    """Each patch minus its mean, over its standard deviation (of n - 1, with 1e-6 under the root)."""
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


def distance(
    predicted: Float[Tensor, "*b t"], target: Float[Tensor, "*b t"], kind: Distance
) -> Float[Tensor, "*b"]:
    """The mean distance over the entries of each target, in float32 or better."""
    predicted, target = (
        predicted.to(torch.promote_types(predicted.dtype, torch.float32)),
        target.to(predicted.device),
    )
    if kind == "l2":
        return (predicted - target).square().mean(-1)
    return F.smooth_l1_loss(predicted, target.to(predicted), beta=SMOOTH_BETA, reduction="none").mean(-1)


def hidden_loss(
    predicted: Float[Tensor, "b n t"],
    target: Float[Tensor, "b n t"],
    hidden: Bool[Tensor, "b n"],
    kind: Distance,
) -> Float[Tensor, ""]:
    """The mean distance over hidden patches."""
    terms = distance(predicted, target, kind)
    return (terms * hidden).sum() / hidden.sum()


def visible_loss(
    predicted: Float[Tensor, "b k t"],
    target: Float[Tensor, "b n t"],
    visible: Int[Tensor, "b k"],
    kind: Distance,
) -> Float[Tensor, ""]:
    """The mean distance over visible patches, each from the target of its own place `visible`.

    The released DMJD pairs predictions in the encoder's order with targets in raster order, so that they
    belong to different patches; that reading is `visible_loss(..., visible.sort(dim=1).values, ...)`.
    """
    own = target.gather(1, visible[:, :, None].expand(-1, -1, target.shape[-1]))
    return distance(predicted, own, kind).mean()
