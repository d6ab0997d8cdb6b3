"""Repeated augmentation (Hoffer et al., CVPR 2020): an epoch holds each chosen image several times, cut anew
each time.

The order is that of the official sampler: the copies of an image follow each other, so that they fall on
different ranks; an epoch is as long as without repeats, rounded down to 256, and so about one image in
`repeats` occurs in it at all, others in the next one.
"""

import numpy as np
from jaxtyping import Int64

from pipelines.order import Order
from pipelines.reading import Reading
from pipelines.streams import GOLDEN, MIX1, MIX2, stream

# n: positions asked for   i: images of an epoch

UNIT = 256


def repeated_order(
    order: Int64[np.ndarray, " i"], *, repeats: int = 3, rank: int = 0, world: int = 1, unit: int = UNIT
) -> Int64[np.ndarray, " kept"]:
    """What `rank` of `world` reads in an epoch whose images come in `order`, as the official sampler has it.

    The row of repeats goes round the ranks; the epoch ends after as many places as there are images, rounded
    down to `unit`.
    """
    images = len(order)
    row = np.repeat(order, repeats)
    padding = -len(row) % world
    row = np.concatenate([row, row[:padding]])
    return row[rank::world][: images // unit * unit // world]


def epoch_length(images: int, repeats: int) -> int:
    """Places of an epoch: as many as images, with repeats rounded down to 256 where there are that many."""
    return images if repeats == 1 or images < UNIT else images // UNIT * UNIT


class Repeated:
    """The endless stream of an order in which each image that is chosen for an epoch comes `repeats` times.

    The images of an epoch are one at random of each few neighbours in the order's own epoch of that number: a
    fresh share of the data each time, read as the order reads it, shard by shard. Positions alone decide, so
    that any number of ranks sees the same stream and a resumed run seeks. One repeat is the order itself.
    """

    def __init__(self, order: Order, repeats: int) -> None:
        self.order, self.repeats = order, repeats
        self.length = epoch_length(order.images, repeats)

    def places(self, positions: Int64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
        """Where these positions lie in the stream of the order; never falling where positions rise."""
        if self.repeats == 1:
            return positions
        images, chosen = self.order.images, -(-self.length // self.repeats)  # in all; of an epoch
        epochs, within = positions // self.length, positions % self.length // self.repeats
        begin = within * images // chosen
        neighbours = (within + 1) * images // chosen - begin
        each, which = np.unique(epochs, return_inverse=True)
        keys = np.array([stream(self.order.seed, "repeats", epoch) for epoch in each.tolist()], np.uint64)
        draws = _mixed(keys[which] + GOLDEN * (within.astype(np.uint64) + np.uint64(1)))
        return epochs * images + begin + (draws % neighbours.astype(np.uint64)).astype(np.int64)

    def place(self, position: int) -> int:
        """Where one position lies in the stream of the order."""
        return int(self.places(np.array([position]))[0])

    def reading(self, *, rank: int, world: int) -> Reading:
        """The shards that a rank reads: with repeats, whose copies go round the ranks, those of all lanes."""
        if self.repeats == 1:
            return Reading(self.order, rank=rank, world=world)
        return Reading(self.order, rank=0, world=1)

    def locate(
        self, positions: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The sample at each position, and the number of its turn: epoch * repeats + copy. No two occurrences
        of an image have the same, so that each has draws of its own."""
        positions = np.asarray(positions, dtype=np.int64)
        samples, epochs = self.order.locate(self.places(positions))
        if self.repeats == 1:
            return samples, epochs
        return samples, epochs * self.repeats + positions % self.length % self.repeats


def _mixed(z: np.ndarray) -> np.ndarray:
    """`streams.mix` of many numbers at once."""
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return z ^ (z >> np.uint64(31))
