"""What a loader hands to a method: the crops of a part of one global batch, and who they are."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pipelines.raw import Raw

# v: views of a group   b: images of this batch   h, w: pixels


@dataclass(frozen=True)
class Batch:
    """The crops of `b` images of the global batch number `step`.

    crops: by view group ("global", "local"), float32 [v, b, 3, h, w], normalised
    labels: int64 [b], -1 where the data has none
    samples: int64 [b], index of each image in the data set (after replacement of bad ones)
    epochs: int64 [b], the epoch each image belongs to (a batch can straddle two); where an epoch repeats
        images, epoch * repeats + copy, so that whatever is drawn for an image is drawn for each copy anew
    positions: int64 [b], place of each image in the endless stream: step * global_batch + slot
    step: number of the global batch; `rows`: images in the whole global batch
    signature: order-free 64-bit sum over (sample, crop parameters) of these images, as a Python int
    raw: what the loader left to the device, of which `pipelines.finish` makes `crops`; None where these are
        there already
    """

    crops: dict[str, Tensor]
    labels: Tensor
    samples: Tensor
    epochs: Tensor
    positions: Tensor
    step: int
    rows: int
    signature: int
    raw: Raw | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def to(self, device: torch.device) -> "Batch":
        """The same batch on `device`; the copy is asynchronous where the memory is pinned."""
        names = ("labels", "samples", "epochs", "positions")
        move = {name: getattr(self, name).to(device, non_blocking=True) for name in names}
        crops = {name: crop.to(device, non_blocking=True) for name, crop in self.crops.items()}
        raw = self.raw.to(device) if self.raw is not None else None
        return replace(self, crops=crops, raw=raw, **move)

    def tensors(self) -> list[Tensor]:
        """Everything that lies on the device."""
        raw = self.raw.tensors() if self.raw is not None else []
        return [*self.crops.values(), self.labels, self.samples, self.epochs, self.positions, *raw]

    def chunks(self, size: int) -> list["Batch"]:
        """The batch in consecutive parts of at most `size` images (for gradient accumulation).

        The signature stays with the first part, so that the parts add up to the whole.
        """
        parts = []
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            parts.append(
                replace(
                    self,
                    crops={name: crop[:, part] for name, crop in self.crops.items()},
                    labels=self.labels[part],
                    samples=self.samples[part],
                    epochs=self.epochs[part],
                    positions=self.positions[part],
                    signature=self.signature if start == 0 else 0,
                )
            )
        return parts


def add_signatures(*signatures: int) -> int:
    """The signature of a union of batches: the sum modulo 2**64."""
    return int(np.sum(np.array(signatures, dtype=np.uint64), dtype=np.uint64))
