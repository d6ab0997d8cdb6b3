"""What a pack will write, decided before anything is: which images, into which split, in which order."""

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Int64
from pydantic import Field

from pipelines.formats.layout import check_classes
from pipelines.formats.sharded import ShardSource
from pipelines.index import HASHED
from pipelines.manifest import FORMAT
from pipelines.order import shuffled
from pipelines.paths import DEFAULT_CACHE
from pipelines.remote.settings import Cache
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
    order: shuffled, so that every shard mixes the classes, or kept, shards and all; auto keeps what is packed
        already, so that a converted data set gives the same batches
    shard_bytes, shard_images: where a shard ends; an image that alone is larger gets a shard of its own
    max_side: pixels; a longer side is brought down to it, as JPEG; none keeps every size
    baseline: progressive JPEGs become baseline ones, 4:2:0 with their own quantisation, which decode several
        times as fast; without it and max_side, every image keeps its bytes
    max_pixels: height times width above which an image is bad, without being decoded
    max_bad_fraction: share of the images that may be bad (rounded up) before the pack stops
    classes: names for the labels 0, 1, ... where the source has none or others
    seed: of the order, and of what is held out
    allow_pipe: whether a source `pipe:COMMAND` may run its command
    cache: where shards behind URLs are kept, and how patiently they are asked for; its patience is for local
        files, too
    """

    format: Literal["webdataset", "ffcv"] = "webdataset"
    order: Literal["auto", "shuffled", "kept"] = "auto"
    holdout: float = Field(default=0, ge=0)
    shard_bytes: int = Field(default=256_000_000, ge=1 << 14)
    shard_images: int = Field(default=10_000, ge=1)
    max_side: int | None = Field(default=None, ge=1)
    baseline: bool = True
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    max_bad_fraction: float = Field(default=0.01, ge=0, le=1)
    classes: tuple[str, ...] | None = None
    seed: int = 0
    allow_pipe: bool = False
    cache: Cache = DEFAULT_CACHE


@dataclass(frozen=True)
class Job:
    """One split: its samples of the source in the order in which they are stored.

    ends: how many of them are used up where a shard ends; none where its size says so
    """

    split: str
    source: Source
    samples: Int64[np.ndarray, " n"]
    classes: tuple[str, ...]
    ends: frozenset[int] | None = None


def plan_jobs(sources: dict[str, Source], packing: Packing) -> list[Job]:
    """The splits to write, shuffled by key or in their old order."""
    if packing.holdout and list(sources) != [""]:
        raise ValueError(f"the source is already split into {' and '.join(sources)}: leave holdout at 0")
    jobs = []
    for split, source in sources.items():
        parts = {split: np.arange(len(source), dtype=np.int64)}
        if packing.holdout:
            train, val = hold_out(source.labels, packing.holdout, seed=packing.seed)
            parts = {"train": train, "val": val}
        for name, samples in parts.items():
            classes = _classes(source, packing)
            if _keeps_order(source, packing):
                jobs.append(Job(name, source, samples, classes, _ends(source, packing)))
            else:
                key = stream(packing.seed, "pack", purpose(name))
                jobs.append(Job(name, source, samples[shuffled(key, len(samples))], classes))
    return jobs


def is_packed(source: Source) -> bool:
    """Whether `pack` wrote the shards of a source: only it notes their checksums."""
    return isinstance(source, ShardSource) and all(s.checksum.startswith(HASHED) for s in source.shards)


def _keeps_order(source: Source, packing: Packing) -> bool:
    return packing.order == "kept" or (packing.order == "auto" and not packing.holdout and is_packed(source))


def _ends(source: Source, packing: Packing) -> frozenset[int] | None:
    """Where the source's own shards end, unless it has none or the settings say where new ones end."""
    cut_anew = packing.holdout or packing.model_fields_set & {"shard_bytes", "shard_images"}
    if cut_anew or not isinstance(source, ShardSource):
        return None
    return frozenset(np.cumsum(source.shard_sizes).tolist())


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
    settings = packing.model_dump(exclude={"max_bad_fraction", "allow_pipe", "cache"})
    parts = [
        (job.split, job.source.fingerprint, len(job.samples), job.ends is not None, list(job.classes))
        for job in jobs
    ]
    text = json.dumps([FORMAT, parts, settings], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
