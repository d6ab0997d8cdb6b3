"""What a loader must offer to be compared, and what several of them share."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from torch.utils.data import DataLoader, Dataset, Subset

from pipelines.crops import Crops, MultiCrop
from pipelines.source import Source

Run = Callable[[int], int]


@dataclass(frozen=True)
class Rival:
    """A loader by name.

    needs: modules without which it cannot be built
    build: of a source, the crops, images of a batch, and threads or workers (0: none beside the caller),
        what passes over that many images once and returns the bytes that would go to the device
    differs: where it does otherwise than the official recipe
    in_two: whether it can use a second core
    """

    name: str
    needs: tuple[str, ...]
    build: Callable[[Source, MultiCrop, int, int], Run]
    differs: str = ""
    in_two: bool = True


def views_of(crops: MultiCrop) -> list[tuple[Crops, int]]:
    """The group of each view, and its number among them."""
    return [(group, v) for group in crops.groups.values() for v in range(group.count)]


def in_a_data_loader(dataset: Dataset, batch: int, workers: int) -> Run:
    """torch's DataLoader over a dataset of lists of views, collating them by view."""
    return passes(lambda images: Subset(dataset, range(images)), batch=batch, workers=workers)


def passes(part: Callable[[int], Dataset], *, workers: int, batch: int | None = None) -> Run:
    """Over so many images by a DataLoader that is kept, so that workers start once.

    batch: images to collate; none where the dataset gives whole batches
    """
    loaders: dict[int, DataLoader] = {}

    def run(images: int) -> int:
        if images not in loaders:
            kept = workers > 0
            loaders[images] = DataLoader(
                part(images), batch_size=batch, num_workers=workers, persistent_workers=kept
            )
        return sum(tensor.nbytes for views in loaders[images] for tensor in views)

    return run


def box(height: int, width: int, group: Crops) -> tuple[int, int, int, int]:
    """Left, top, width and height of a random crop, for libraries that draw none (torchvision's rule)."""
    low, high = (math.log(side) for side in group.aspect)
    for _ in range(10):
        area, aspect = height * width * random.uniform(*group.scale), math.exp(random.uniform(low, high))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            return random.randint(0, width - w), random.randint(0, height - h), w, h
    side = min(height, width)
    return (width - side) // 2, (height - side) // 2, side, side
