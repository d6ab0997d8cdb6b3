"""What the nodes of a large run fetch, and when: our own order and reading, without a byte that moves.

Shards are counts, as a manifest gives them. A node holds `PER_NODE` consecutive ranks and one cache for them.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pipelines.order import Order
from pipelines.reading import Reading

# s: shards   l: lanes of a node   u: uses of a shard by a window

PER_NODE, WINDOW, SEED = 8, 4096, 7


@dataclass(frozen=True)
class DataSet:
    """So many shards of so many images of so many bytes."""

    name: str
    shards: int
    images: int
    bytes: int

    @property
    def shard_bytes(self) -> int:
        return self.images * self.bytes

    def order(self, lanes: int) -> Order:
        return Order(np.full(self.shards, self.images), SEED, WINDOW, lanes=lanes)


IMAGENET = DataSet("ImageNet-1k, 1,281 shards of 1,000 images of 110 kB", 1_281, 1_000, 110_000)
LAION = DataSet("LAION-2B, 200,000 shards of 10,000 images of 50 kB", 200_000, 10_000, 50_000)


@dataclass(frozen=True)
class Traffic:
    """Of an epoch. fetched: shards that each node fetches, if it kept none; open: shards, and bytes, that a
    node needs at one time at most; readers: nodes that fetch a shard, on average."""

    nodes: int
    lanes_of_rank: int
    fetched: np.ndarray
    open: int
    open_bytes: int
    readers: float


def lanes_of_node(order: Order, node: int, world: int) -> Int64[np.ndarray, " l"]:
    """The lanes of all ranks of a node, as their Reading has them."""
    ranks = range(node * PER_NODE, min(world, (node + 1) * PER_NODE))
    return np.unique(np.concatenate([Reading(order, rank=rank, world=world).lanes for rank in ranks]))


def reading_of_node(order: Order, node: int, world: int) -> Reading:
    """The Reading of a whole node, whose ranks share a cache."""
    reading = Reading(order, rank=0, world=1)
    reading.lanes = lanes_of_node(order, node, world)
    return reading


def uses(reading: Reading, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shard, first and last position [u] of each use, by when it begins."""
    found = reading.order.stretches(epoch, reading.lanes)
    counts = found.last - found.first
    window = np.repeat(np.arange(len(counts)), counts)
    within = np.arange(len(window)) - np.repeat(np.cumsum(counts) - counts, counts)
    return found.shards[found.first[window] + within], found.begins[window], found.ends[window]


def traffic(data: DataSet, *, world: int, lanes: int, epoch: int = 0) -> Traffic:
    """An epoch of a run of `world` ranks."""
    order, nodes = data.order(lanes), -(-world // PER_NODE)
    fetched = np.zeros(nodes, np.int64)
    readers = np.zeros(data.shards, np.int64)
    seen: dict[tuple[int, ...], np.ndarray] = {}
    for node in range(nodes):
        mine = tuple(lanes_of_node(order, node, world).tolist())
        if mine not in seen:
            seen[mine] = np.unique(uses(reading_of_node(order, node, world), epoch)[0])
        fetched[node] = len(seen[mine])
        readers[seen[mine]] += 1
    first = reading_of_node(order, 0, world)
    most = first.most_at_once(np.full(data.shards, 1), epoch)
    own = len(Reading(order, rank=0, world=world).lanes)
    return Traffic(nodes, own, fetched, most, most * data.shard_bytes, float(readers.mean()))


def check(data: DataSet, *, world: int, lanes: int, batch: int, steps: int = 4) -> None:
    """Holds the reading of nodes to the samples that `Order.locate` gives their ranks, all over an epoch."""
    order = data.order(lanes)
    rng = np.random.default_rng(0)
    for step in rng.integers(0, len(order) // batch, steps).tolist():
        positions = np.arange(step * batch, (step + 1) * batch)
        shards = order.locate(positions)[0] // data.images
        node = int(rng.integers(0, -(-world // PER_NODE)))
        mine = positions[positions % world // PER_NODE == node]
        shard, begins, ends = uses(reading_of_node(order, node, world), 0)
        for position, read in zip(mine.tolist(), shards[mine - positions[0]].tolist()):
            assert ((shard == read) & (begins <= position) & (position < ends)).any()


def fetched_with_cache(data: DataSet, *, world: int, lanes: int, share: float, epochs: int = 3) -> list[int]:
    """Shards that node 0 fetches in each epoch with a cache of `share` of the data set.

    It gives up what is needed last, as `pipelines.remote` does.
    """
    reading = reading_of_node(data.order(lanes), 0, world)
    found = [uses(reading, epoch) for epoch in range(epochs)]
    shard, begins, ends = (np.concatenate(parts) for parts in zip(*found))
    epoch_of = np.repeat(np.arange(epochs), [len(part[0]) for part in found])
    following: dict[int, list[int]] = {}
    for i in range(len(shard) - 1, -1, -1):
        following.setdefault(int(shard[i]), []).append(i)
    room, held, counts = int(share * data.shards), {}, [0] * epochs  # held: when each shard is over now
    for i in range(len(shard)):
        number = int(shard[i])
        following[number].pop()
        if number not in held:
            counts[int(epoch_of[i])] += 1
            if len(held) >= room:
                _give_up(held, following, begins, now=int(begins[i]))
        held[number] = max(int(ends[i]), held.get(number, 0))
    return counts


def _give_up(held: dict[int, int], following: dict[int, list[int]], begins: np.ndarray, *, now: int) -> None:
    """Drops the shard that is needed last among those that nobody reads now, if there is one."""
    spare = [number for number, end in held.items() if end <= now]
    if spare:
        never = np.iinfo(np.int64).max
        del held[
            max(spare, key=lambda number: int(begins[following[number][-1]]) if following[number] else never)
        ]


def schedule(data: DataSet, *, world: int, lanes: int, batch: int, nodes: int, each: int) -> list[list[str]]:
    """The first shards that some nodes need, as (node, step, shards)."""
    rows = []
    for node in range(nodes):
        shard, begins, _ = uses(reading_of_node(data.order(lanes), node, world), 0)
        steps = begins // batch
        for step in np.unique(steps)[:each].tolist():
            rows.append(
                [str(node), f"{step:,}", ", ".join(f"{s:,}" for s in np.unique(shard[steps == step]))]
            )
    return rows
