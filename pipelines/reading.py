"""Which shards one rank reads, and when: the order seen from storage, for whoever fetches ahead of use."""

from collections.abc import Iterator
from functools import lru_cache
from math import gcd

import numpy as np
from jaxtyping import Int64

from pipelines.order import Order, Stretches

# s: shards   r: (window, shard) pairs of an epoch

NEVER = np.iinfo(np.int64).max


class Reading:
    """The reading of `rank` among `world` ranks. Positions are those of the endless stream.

    A rank serves the positions p with p % world == rank, and so the lanes that equal rank modulo
    gcd(world, lanes): all of them where world and lanes have no common divisor.
    """

    def __init__(self, order: Order, *, rank: int, world: int) -> None:
        self.order = order
        step = gcd(world, order.lanes)
        self.lanes = np.arange(rank % step, order.lanes, step)
        self.generation = order.window * order.lanes  # positions after which every lane is one window further
        self._stretches = lru_cache(3)(lambda epoch: order.stretches(epoch, self.lanes))
        self._pairs = lru_cache(3)(self._pairs_of)

    def needs(self, position: int) -> Iterator[tuple[int, int]]:
        """From `position` on without end: (position at which it is needed first, shard), in that order."""
        epoch = position // self.order.images
        while True:
            found = self._stretches(epoch)
            for i in np.flatnonzero(found.ends > position).tolist():
                for shard in found.shards[found.first[i] : found.last[i]].tolist():
                    yield int(found.begins[i]), shard
            epoch += 1

    def next_uses(self, position: int) -> Int64[np.ndarray, " s"]:
        """The position at which each shard is needed next: not above `position` if it is needed now, and
        NEVER if not until the end of the epoch after this one."""
        uses = np.full(len(self.order.shard_sizes), NEVER)
        epoch = position // self.order.images
        for one in (epoch, epoch + 1):
            shards, begins, ends = self._pairs(one)
            left = ends > position
            np.minimum.at(uses, shards[left], begins[left])
        return uses

    def most_at_once(self, sizes: Int64[np.ndarray, " s"], epoch: int) -> int:
        """Bytes of the shards that the lanes read at one time, at most, in an epoch; `sizes` in bytes,
        or ones for the shards that count.
        """
        found = self._stretches(epoch)
        before = np.concatenate([[0], np.cumsum(sizes[found.shards])])
        window = (found.begins - epoch * self.order.images) // self.generation
        # A rank may have no images: those of an epoch can be fewer than the lanes.
        return int(np.bincount(window, weights=before[found.last] - before[found.first]).max(initial=0))

    def _pairs_of(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Shard, begin and end [r] of every use of a shard by a window of an epoch."""
        found: Stretches = self._stretches(epoch)
        counts = found.last - found.first
        window = np.repeat(np.arange(len(counts)), counts)
        within = np.arange(len(window)) - np.repeat(np.cumsum(counts) - counts, counts)
        return found.shards[found.first[window] + within], found.begins[window], found.ends[window]
