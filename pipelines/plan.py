"""What a pack will write, decided before anything is: which images, into which split, in which order."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from pipelines.formats.layout import check_classes
from pipelines.manifest import FORMAT
from pipelines.order import shuffled
from pipelines.settings import Settings
from pipelines.source import Source
from pipelines.split import hold_out
from pipelines.streams import purpose, stream

# n: images of a split

MAX_PIXELS = 64_000_000  # as the loader's, so that what is packed can be read


class Packing(Settings):
    """How to pack.

    format: webdataset tars or ffcv betons; in both the same images in the same order: the same batches
    holdout: share (below 1) or number of images that go to val, stratified by class; 0 for none
    shard_bytes, shard_images: where a shard ends; an image that alone is larger gets a shard of its own
    max_side: pixels; a longer side is brought down to it, as JPEG; none keeps every image's bytes
    max_pixels: height times width above which an image is bad, without being decoded
    max_bad_fraction: share of the images that may be bad (rounded up) before the pack stops
    classes: names for the labels 0, 1, ... where the source has none or others
    """

    format: Literal["webdataset", "ffcv"] = "webdataset"
    holdout: float = Field(default=0, ge=0)
    shard_bytes: int = Field(default=256_000_000, ge=1 << 14)
    shard_images: int = Field(default=10_000, ge=1)
    max_side: int | None = Field(default=None, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    classes: tuple[str, ...] | None = None
    seed: int = 0


@dataclass(frozen=True)
class Job:
    """One split: its samples of the source in the order in which they are stored."""

    split: str
    source: Source
    samples: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]


def plan_jobs(sources: dict[str, Source], packing: Packing) -> list[Job]:
    """The splits to write. The images of each are shuffled by key, so that every shard mixes the classes."""
    if packing.holdout and list(sources) != [""]:
        raise ValueError(f"the source is already split into {' and '.join(sources)}: leave holdout at 0")
    jobs = []
    for split, source in sources.items():
        parts = {split: np.arange(len(source), dtype=np.int64)}
        if packing.holdout:
            train, val = hold_out(source.labels, packing.holdout, seed=packing.seed)
            parts = {"train": train, "val": val}
        for name, samples in parts.items():
            key = stream(packing.seed, "pack", purpose(name))
            jobs.append(Job(name, source, samples[shuffled(key, len(samples))], _classes(source, packing)))
    return jobs


def _classes(source: Source, packing: Packing) -> tuple[str, ...]:
    if packing.classes is None:
        return tuple(source.classes)
    if len(packing.classes) < len(source.classes) or not len(source.classes):
        raise ValueError(
            f"{len(packing.classes)} class names were given for data with {len(source.classes)} classes"
        )
    check_classes(packing.classes, "the list of class names")
    return packing.classes


def plan_digest(jobs: list[Job], packing: Packing) -> str:
    """The digest of everything that the shards' bytes depend on."""
    settings = packing.model_dump(exclude={"max_bad_fraction"})
    parts = [(job.split, job.source.fingerprint, len(job.samples)) for job in jobs]
    text = json.dumps([FORMAT, parts, settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
