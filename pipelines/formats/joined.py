"""Several data sets as one, end to end."""

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from jaxtyping import Int64

from pipelines.formats.layout import check_classes
from pipelines.notes import NOTHING

if TYPE_CHECKING:
    from pipelines.source import Source

Kind = TypeVar("Kind")


class JoinedSource:
    """Data sets with classes of their own, in their order. Raises ValueError where two share a class."""

    def __init__(self, sources: Sequence["Source"], where: str) -> None:
        self.sources = list(sources)
        self.classes = [name for source in self.sources for name in source.classes]
        check_classes(self.classes, where)
        self.shard_sizes = np.concatenate([source.shard_sizes for source in self.sources])
        self.notes = sum((source.notes for source in self.sources), NOTHING)
        self.stored_bytes = sum(source.stored_bytes for source in self.sources)
        self._starts = [0, *np.cumsum([len(source) for source in self.sources]).tolist()]
        joined = "\n".join(source.fingerprint for source in self.sources)
        self.fingerprint = hashlib.blake2b(joined.encode(), digest_size=16).hexdigest()

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The labels of all images, numbered on from one data set to the next."""
        firsts = np.cumsum([0] + [len(source.classes) for source in self.sources])
        parts = [
            np.where(source.labels < 0, -1, source.labels + first)
            for source, first in zip(self.sources, firsts)
        ]
        return np.concatenate(parts)

    def __len__(self) -> int:
        return self._starts[-1]

    def label(self, sample: int) -> int:
        number = bisect_right(self._starts, sample) - 1
        label = self.sources[number].label(sample - self._starts[number])
        return label if label < 0 else label + sum(len(source.classes) for source in self.sources[:number])

    def read(self, sample: int) -> bytes:
        source, place = self._place(sample)
        return source.read(place)

    def key(self, sample: int) -> str:
        source, place = self._place(sample)
        return source.key(place)

    def shard(self, sample: int) -> str:
        source, place = self._place(sample)
        return source.shard(place)

    def _place(self, sample: int) -> tuple["Source", int]:
        number = bisect_right(self._starts, sample) - 1
        return self.sources[number], sample - self._starts[number]


def parts_of(source: "Source", kind: type[Kind], *, first: int = 0) -> Iterator[tuple[int, Kind]]:
    """The parts of a source that are of a kind, with the number of their first shard in it."""
    if isinstance(source, kind):
        yield first, source
    elif isinstance(source, JoinedSource):
        for part in source.sources:
            yield from parts_of(part, kind, first=first)
            first += len(part.shard_sizes)
