"""What packing has changed: bytes, and the images that a core reads and decodes each second.

packed = pack("photos.zip", "shards", Packing(max_side=256))
print(gain("photos.zip", packed))
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.decode import BadSample
from pipelines.fetch import fetched
from pipelines.inspect import draw
from pipelines.pack import Packed
from pipelines.paths import DEFAULT_CACHE
from pipelines.plan import MAX_PIXELS
from pipelines.planes import plane_decoder
from pipelines.remote.settings import Cache
from pipelines.source import ShardError, Source, open_splits

SAMPLE = 128


@dataclass(frozen=True)
class Side:
    """A data set: its images, their bytes as stored, and how many of them one core decodes in a second."""

    images: int
    bytes: int
    rate: float

    def __str__(self) -> str:
        each = self.bytes / max(1, self.images) / 1e3
        return f"{self.bytes / 1e6:,.1f} MB, {each:,.1f} kB an image, {self.rate:,.0f} images/s a core"


@dataclass(frozen=True)
class Gain:
    """Before and after; the rates are those of `sample` images, by the time the processor spent on them."""

    before: Side
    after: Side
    sample: int

    def __str__(self) -> str:
        return (
            f"before: {self.before}\nafter:  {self.after}\n"
            f"(read and decoded by one thread, {self.sample:,} images, processor time)"
        )


def gain(
    source: str | Path | Sequence[str | Path],
    packed: Packed,
    *,
    sample: int = SAMPLE,
    cache: Cache = DEFAULT_CACHE,
    allow_pipe: bool = False,
) -> Gain:
    """Compares the source of a pack with what was packed. Reads `sample` images of each."""
    before = list(open_splits(source, cache=cache, allow_pipe=allow_pipe).values())
    after = list(open_splits(packed.out).values())
    looked_at, patience = min(sample, sum(map(len, after))), cache.patience
    return Gain(_side(before, sample, patience), _side(after, sample, patience), looked_at)


def _side(sources: list[Source], sample: int, patience: float) -> Side:
    images, stored = sum(map(len, sources)), sum(source.stored_bytes for source in sources)
    shares = [max(1, round(sample * len(source) / images)) for source in sources]
    drawn = [
        (source, number)
        for source, share in zip(sources, shares)
        for number in draw(len(source), share, seed=0)
    ]
    _decoded(drawn[:1], 0)  # whatever is compiled or loaded first is no matter of the images
    before = time.thread_time()
    good = _decoded(drawn, patience)
    return Side(images, stored, good / max(1e-9, time.thread_time() - before))


def _decoded(drawn: list[tuple[Source, int]], patience: float) -> int:
    """Reads images and decodes them as the loader does; how many of them can be."""
    good = 0
    for source, number in drawn:
        try:
            plane_decoder()(fetched(source, number, patience=patience), MAX_PIXELS)
            good += 1
        except BadSample:
            continue
        except ShardError:
            patience = 0.0  # what was waited for in vain once is not waited for again
    return good
