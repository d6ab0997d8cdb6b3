"""What a loader leaves to the training device: pictures or crops as levels, and what was drawn for them."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from pipelines.draws import VIEW

# v: views of an image, or of a group   b: images   n, m: sides of a view   f: fields of a VIEW
# k: pictures that are too large to leave whole

FIELDS = VIEW.names or ()


def numbers_of(views: np.ndarray) -> Float32[np.ndarray, "*rows f"]:
    """The drawn parameters (VIEW [...]) as numbers that a device can read; integers are exact."""
    return np.stack([views[name].astype(np.float32) for name in FIELDS], axis=-1)


@dataclass(frozen=True)
class RawCrops:
    """`data.augment=split`: crops, resized and flipped, by view group; their colours are left to do."""

    levels: dict[str, UInt8[Tensor, "v b 3 n m"]]
    views: Float32[Tensor, "b v f"]

    def to(self, device: torch.device) -> "RawCrops":
        """The same on `device`; asynchronous where the memory is pinned."""
        moved = {name: crops.to(device, non_blocking=True) for name, crops in self.levels.items()}
        return RawCrops(moved, self.views.to(device, non_blocking=True))

    def tensors(self) -> list[Tensor]:
        """Everything that lies on the device."""
        return [*self.levels.values(), self.views]


@dataclass(frozen=True)
class RawPictures:
    """`data.augment=device`: whole pictures, luma and then both chromas at half of its sides (rounded up).

    pixels: all of them, end to end; starts: where each begins; sides: height and width
    largest: (height, width) that no picture which lies here exceeds, on the host, so that shapes need no look
        at the device
    large: rows of pictures above `device_crops.LARGEST_SIDE`, which were cut as `split` does; 3 bytes stand
        for each in `pixels`; levels: their crops, by view group, none where there are no such rows
    """

    pixels: UInt8[Tensor, " bytes"]
    starts: Int64[Tensor, " b"]
    sides: Int64[Tensor, "b 2"]
    largest: tuple[int, int]
    views: Float32[Tensor, "b v f"]
    large: Int64[Tensor, " k"] = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    levels: dict[str, UInt8[Tensor, "v k 3 n m"]] = field(default_factory=dict)

    def to(self, device: torch.device) -> "RawPictures":
        """The same on `device`; asynchronous where the memory is pinned."""
        names = ("pixels", "starts", "sides", "views", "large")
        levels = {name: crops.to(device, non_blocking=True) for name, crops in self.levels.items()}
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        return replace(self, levels=levels, **moved)

    def tensors(self) -> list[Tensor]:
        """Everything that lies on the device."""
        return [self.pixels, self.starts, self.sides, self.views, self.large, *self.levels.values()]


Raw = RawCrops | RawPictures
