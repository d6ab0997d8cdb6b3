"""Images as evaluation sees them: whole, resized, the centre cut, normalised; in order, by threads."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pipelines.bad import BadSamples, Reader
from pipelines.crew import Crew
from pipelines.crops import MultiCrop
from pipelines.data import MAX_PIXELS, Data, available_cores
from pipelines.fetch import PATIENCE
from pipelines.native import native
from pipelines.order import Order
from pipelines.render import normalisation
from pipelines.source import Source

# b: images of a batch

# The shorter side is resized to 256 for a cut of 224, and in this proportion for others.
RATIO = 256 / 224

DINO = MultiCrop()  # for its mean and std


@dataclass(frozen=True)
class EvaluationBatch:
    """Normalised images, their labels (-1 where unknown), and which they are."""

    images: Float[Tensor, "b 3 height width"]
    labels: Int64[Tensor, " b"]
    samples: Int64[Tensor, " b"]


def _no_clock(part: str) -> None:
    """Evaluation keeps no times."""


@dataclass
class _Job:
    """One batch on its way."""

    asked: np.ndarray
    reader: Reader
    size: tuple[int, int]
    resize: int
    affine: np.ndarray
    stop: threading.Event | None = None
    images: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.rows = len(self.asked)
        self.images = np.empty((self.rows, 3, *self.size), np.float32)
        self.used = np.empty(self.rows, np.int64)

    def fill(self, row: int) -> None:
        pixels, self.used[row] = self.reader.pixels(int(self.asked[row]), _no_clock, self.stop)
        native().centre(pixels, _resized(pixels.shape[:2], self.resize), self.affine, self.images[row])

    def finish(self) -> "_Job":
        return self


def _resized(sides: tuple[int, int], shorter: int) -> tuple[int, int]:
    """(height, width) with `shorter` pixels on the shorter side; the other is truncated as in torchvision."""
    height, width = sides
    if height <= width:
        return shorter, shorter * width // height
    return shorter * height // width, shorter


def evaluation_batches(
    data: Data,
    source: Source,
    *,
    batch: int = 128,
    size: int | tuple[int, int] | None = None,
    resize: int | None = None,
    samples: Sequence[int] | np.ndarray | None = None,
    bad: BadSamples | None = None,
) -> Iterator[EvaluationBatch]:
    """The images of a data set in order, `batch` at a time.

    size: pixels of a side, or (height, width); by default that of the global crops
    resize: what an image's shorter side is first resized to; by default 256/224 of the larger of the two
    samples: which images; by default all. A bad one is left out, so that no other counts twice
    bad: counts the bad ones, for ranks that agree on them; by default this reader's own, which raises
    """
    crops = data.crops.global_crops
    sides = (crops.height, crops.width) if size is None else _sides(size)
    wanted = np.arange(len(source)) if samples is None else np.asarray(samples, np.int64)
    bad = BadSamples(source, limit=data.max_bad_fraction) if bad is None else bad
    reader = _reader(source, bad, data.max_pixels, patience=data.cache.patience)
    affine = normalisation(data.crops)
    labels, stop = np.asarray(source.labels), threading.Event()
    jobs = (
        _Job(wanted[at : at + batch], reader, sides, resize or _shorter(sides), affine, stop)
        for at in range(0, len(wanted), batch)
    )
    for job in Crew(data.thread_count, ahead=data.prefetch, stop=stop).run(jobs):
        good = job.used == job.asked
        if good.any():
            used = job.used[good]
            yield EvaluationBatch(
                images=torch.from_numpy(job.images if good.all() else job.images[good]),
                labels=torch.from_numpy(labels[used].astype(np.int64)),
                samples=torch.from_numpy(used),
            )


def evaluation_images(
    source: Source,
    samples: Sequence[int] | np.ndarray,
    size: int | tuple[int, int],
    resize: int | None = None,
    *,
    crops: MultiCrop = DINO,
    threads: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Float[Tensor, "b 3 height width"]:
    """These images as evaluation sees them.

    size: pixels of a side, or (height, width); resize: pixels of the shorter side before the cut, by default
    256/224 of `size`; crops: gives mean and std. Any share of the images may be bad and is replaced.
    """
    reader = _reader(source, BadSamples(source, limit=1.0), max_pixels)
    sides = _sides(size)
    job = _Job(np.asarray(samples, np.int64), reader, sides, resize or _shorter(sides), normalisation(crops))
    with ThreadPoolExecutor(max(1, available_cores() if threads is None else threads)) as pool:
        list(pool.map(job.fill, range(job.rows)))
    return torch.from_numpy(job.images)


def _reader(source: Source, bad: BadSamples, max_pixels: int, *, patience: float = PATIENCE) -> Reader:
    order = Order(source.shard_sizes, seed=0, window=1)
    return Reader(source, order, bad, max_pixels=max_pixels, patience=patience)


def _sides(size: int | tuple[int, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _shorter(sides: tuple[int, int]) -> int:
    return round(max(sides) * RATIO)
