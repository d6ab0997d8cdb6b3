"""A split to evaluate on: which samples, their labels, and their pictures in order."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from raymask.evaluate import crops
from raymask.evaluate.features import in_batches
from raymask.evaluate.settings import Evaluate

if TYPE_CHECKING:
    from pipelines.source import Source

    from pipelines.loader import Data

# n: images of the split

HEALTH_IMAGES = 2048  # enough for the rank of any common width


@dataclass(frozen=True)
class Split:
    """Some samples of a source, in its order; labels are -1 where unknown."""

    source: "Source"
    samples: Int[np.ndarray, " n"]
    shape: crops.Shape
    batch: int

    @property
    def labels(self) -> Int[Tensor, " n"]:
        return torch.from_numpy(np.asarray(self.source.labels)[self.samples])

    @property
    def classes(self) -> list[str]:
        return self.source.classes

    def images(self, *, seed: int = 0, view: int | None = None) -> Iterator[Tensor]:
        """The centre crops in batches; given a view, the random crops number `view` of the stream `seed`."""
        if view is None:
            load = partial(crops.centre, self.source, shape=self.shape)
        else:
            load = partial(crops.augmented, self.source, shape=self.shape, seed=seed, view=view)
        return in_batches(load, self.samples, batch=self.batch)


def open_split(path: str, settings: Evaluate, shape: crops.Shape, *, labelled: bool) -> Split:
    """The labelled samples at `path`, at most `max_images` spread evenly over them; or, without labels, a few
    for the health of features.
    """
    from pipelines.source import open_source

    source = open_source(path)
    chosen = np.flatnonzero(np.asarray(source.labels) >= 0) if labelled else np.arange(len(source))
    limit = settings.max_images or len(source)
    limit = limit if labelled else min(HEALTH_IMAGES, limit)
    if limit < len(chosen):
        chosen = chosen[np.arange(limit) * len(chosen) // limit]
    return Split(source, chosen, shape, settings.batch)


def why_no_accuracies(data: "Data") -> str | None:
    """What stands in the way of accuracies on this data, and what to do about it; None where nothing does."""
    from pipelines.source import open_source

    if data.val is None:
        return (
            "no accuracies: data.val is not set. Pack the data with a held-out part "
            "(raymask pack DATA OUT holdout=0.1) and set data.val"
        )
    bank, queries = open_source(data.train), open_source(data.val)
    known = int((np.asarray(bank.labels) >= 0).sum())
    if not bank.classes or not known:
        return (
            f"no accuracies: {data.train} has no labels. "
            "Put the images of each class into a folder of its own and pack again"
        )
    if not (np.asarray(queries.labels) >= 0).any():
        return f"no accuracies: {data.val} has no labels, {data.train} has {len(bank.classes)} classes"
    if list(bank.classes) != list(queries.classes):
        return (
            f"no accuracies: the classes of {data.train} ({len(bank.classes)}) and {data.val} "
            f"({len(queries.classes)}) differ. Pack both with the same class folders"
        )
    if len(bank.classes) > known:
        return (
            f"no accuracies: {data.train} has {len(bank.classes)} classes but only {known} labelled images. "
            "Give each class at least one image"
        )
    return None
