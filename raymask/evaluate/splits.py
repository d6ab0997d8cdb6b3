"""A split to evaluate on: which samples, and their pictures with labels, in order."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from pipelines.bad import BadSamples
from pipelines.data import Data
from pipelines.evaluation import RATIO, EvaluationBatch, evaluation_batches
from pipelines.source import Source
from raymask.evaluate.crops import augmented
from raymask.evaluate.settings import Evaluate
from raymask.world import World

# n: images of the split   m: some images

HEALTH_IMAGES = 2048  # enough for the rank of any common width


@dataclass(frozen=True)
class Split:
    """Some samples of a source, in its order: the shorter side goes to `resize` pixels, the centre is cut."""

    source: Source
    samples: Int[np.ndarray, " n"]
    data: Data
    size: tuple[int, int]
    resize: int
    batch: int

    def batches(self, bad: BadSamples | None = None) -> Iterator[EvaluationBatch]:
        """The centre crops."""
        yield from self._cut(self.size, bad)

    def random_crops(
        self, bad: BadSamples | None = None, *, seed: int, views: Iterable[int]
    ) -> Iterator[EvaluationBatch]:
        """These random crops of every image, out of its `resize` square: a batch in each view in turn."""
        for batch in self._cut((self.resize, self.resize), bad):
            for view in views:
                images = augmented(batch.images, batch.samples, size=self.size, seed=seed, view=view)
                yield replace(batch, images=images)

    def _cut(self, size: tuple[int, int], bad: BadSamples | None) -> Iterator[EvaluationBatch]:
        return evaluation_batches(
            self.data,
            self.source,
            batch=self.batch,
            size=size,
            resize=self.resize,
            samples=self.samples,
            bad=bad,
        )

    def spread(self, count: int) -> "Split":
        """At most `count` of the samples, spread evenly over them."""
        return replace(self, samples=spread(self.samples, count))

    def share(self, world: World) -> "Split":
        """This rank's batches: every `world.size`-th, whole, so that forwards are those of one process."""
        batch = np.arange(len(self.samples)) // self.batch
        return replace(self, samples=self.samples[batch % world.size == world.rank])

    def rounds(self, world: World) -> int:
        """The batches of the largest share."""
        return -(-len(self.samples) // (self.batch * world.size))

    def batch_of(self, samples: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """The number of the batch that each of these samples of the split is in."""
        return np.searchsorted(self.samples, samples) // self.batch


def open_split(
    source: Source, data: Data, settings: Evaluate, *, native: int | tuple[int, int], labelled: bool
) -> Split:
    """The labelled samples, at most `max_images` spread evenly over them; without labels, a few for health.

    Raises ValueError for a crop that is larger than what it is cut from.
    """
    size = settings.size or native
    height, width = (size, size) if isinstance(size, int) else size
    resize = settings.resize or round(max(height, width) * RATIO)
    if resize < max(height, width):
        raise ValueError(
            f"evaluate.resize={resize} is smaller than the evaluated crop of {height}x{width} pixels; "
            f"give at least {max(height, width)}"
        )
    chosen = np.flatnonzero(np.asarray(source.labels) >= 0) if labelled else np.arange(len(source))
    limit = settings.max_images or len(source)
    limit = limit if labelled else min(HEALTH_IMAGES, limit)
    return Split(source, spread(chosen, limit), data, (height, width), resize, settings.batch)


def spread(samples: Int[np.ndarray, " n"], count: int) -> Int[np.ndarray, " m"]:
    """At most `count` of them, evenly spread, in their order."""
    return samples if count >= len(samples) else samples[np.arange(count) * len(samples) // count]


def why_no_accuracies(bank: Source, queries: Source | None) -> str | None:
    """What stands in the way of accuracies on this data, and what to do about it; None where nothing does."""
    if queries is None:
        return (
            "no accuracies: there are no held-out images. Pack the data with a held-out part "
            "(raymask pack DATA OUT holdout=0.1), or set data.val"
        )
    known = int((np.asarray(bank.labels) >= 0).sum())
    if not bank.classes or not known:
        return (
            "no accuracies: the training images have no labels. "
            "Put the images of each class into a folder of its own and pack again"
        )
    if list(bank.classes) != list(queries.classes) or not (np.asarray(queries.labels) >= 0).any():
        return (
            f"no accuracies: the classes of data.train ({len(bank.classes)}) and data.val "
            f"({len(queries.classes)}) differ. Pack both from the same class folders"
        )
    if len(bank.classes) > known:
        return (
            f"no accuracies: there are {len(bank.classes)} classes but only {known} labelled training "
            "images. Give each class at least one"
        )
    return None


def why_not_classified(count: int, names: Sequence[str], bank: Source) -> str | None:
    """Why a classifier of `count` classes cannot be asked about this data; None where it can.

    names: of its classes; none where nobody wrote them down
    """
    if len(bank.classes) == count and list(names or bank.classes) == list(bank.classes):
        return None
    return (
        f"no eval/top1: the classifier learned other classes ({count}) than those of data.train "
        f"({len(bank.classes)}); the rest is measured on the features, whatever the classes"
    )
