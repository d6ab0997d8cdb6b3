"""The sample order: a pure function of (images per shard, seed, position), so resuming is a seek.

The shards are permuted once an epoch and, end to end, cut into lanes. Position p of the endless stream
belongs to epoch p // N and lane p mod lanes; each lane walks its own part, shuffled inside bounded windows.
Ranks, threads and batch sizes only choose which positions they ask for; they never change the answer.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from pipelines.streams import GOLDEN, MIX1, MIX2, stream

# n: positions asked for   s: shards (s1: one more)   l: lanes (l1: one more)   w: windows   N: all images

LANES = 64
EPOCHS_KEPT = 3


def shuffled(key: np.uint64, count: int) -> Int64[np.ndarray, " count"]:
    """The permutation of range(count) that belongs to the stream `key`.

    The numbers are ranked by splitmix64 hashes (as in `pipelines.streams`) rather than drawn by a NumPy
    generator, whose streams may change between versions: a run must resume after an upgrade, too.
    """
    z = np.uint64(key) + GOLDEN * np.arange(1, count + 1, dtype=np.uint64)
    z = (z ^ (z >> np.uint64(30))) * MIX1
    z = (z ^ (z >> np.uint64(27))) * MIX2
    return np.argsort(z ^ (z >> np.uint64(31)))  # no two hashes are equal: any kind of sort gives the same


@dataclass(frozen=True)
class _Epoch:
    """One epoch: `ends[i]` images lie before the i-th of the permuted `shards`; `cuts` part the lanes."""

    shards: Int64[np.ndarray, " s"]
    ends: Int64[np.ndarray, " s1"]
    cuts: Int64[np.ndarray, " l1"]


@dataclass(frozen=True)
class Stretches:
    """The windows that some lanes read in an epoch, as they are begun.

    Window i needs shards[first[i]:last[i]].

    begins, ends: positions of the endless stream at which a window is begun, and over
    shards: all of the epoch, permuted
    """

    begins: Int64[np.ndarray, " w"]
    ends: Int64[np.ndarray, " w"]
    first: Int64[np.ndarray, " w"]
    last: Int64[np.ndarray, " w"]
    shards: Int64[np.ndarray, " s"]


class Order:
    """Where every position of the endless stream lies in the data set.

    window: images of a lane that are shuffled among each other (a lane's reads stay within such a stretch)
    lanes: parts that an epoch's shards are cut into, as many as shards at most.
    Thread-safe; memory is bounded by two windows a lane and a few permutations of the shards.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int] | Int64[np.ndarray, " s"],
        seed: int,
        window: int,
        *,
        lanes: int = LANES,
    ) -> None:
        self.shard_sizes = np.asarray(shard_sizes, dtype=np.int64)
        self.images = int(self.shard_sizes.sum())
        if self.images == 0 or self.shard_sizes.min() < 0:
            raise ValueError("the data set holds no images: there is nothing to order")
        if window < 1:
            raise ValueError(
                f"the shuffle window is {window} images: give at least 1 (1 keeps a lane's order)"
            )
        self.seed, self.window = seed, int(window)
        self.lanes = min(lanes, len(self.shard_sizes))
        self._starts = np.concatenate([[0], np.cumsum(self.shard_sizes)])
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self.images

    def locate(
        self, positions: Int64[np.ndarray, " n"]
    ) -> tuple[Int64[np.ndarray, " n"], Int64[np.ndarray, " n"]]:
        """The sample at each position and the epoch it belongs to. Positions may come in any order."""
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and positions.min() < 0:
            raise ValueError(f"position {positions.min()} lies before the start of the stream")
        epochs, lanes = positions // self.images, positions % self.lanes
        first = epochs * self.images
        places = (
            positions - first - (lanes - first) % self.lanes
        ) // self.lanes  # inside the lane, this epoch
        windows, within = places // self.window, places % self.window
        most = self.images // (self.lanes * self.window) + 2  # windows of a lane
        groups, group = np.unique((epochs * self.lanes + lanes) * most + windows, return_inverse=True)
        members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
        samples = np.empty_like(positions)
        for code, rows in zip(groups.tolist(), members if len(groups) else []):
            chosen = self._window(code // most // self.lanes, code // most % self.lanes, code % most)
            samples[rows] = chosen[within[rows]]
        return samples, epochs

    def replacement(self, sample: int, attempt: int) -> int:
        """The sample that stands in for a bad one at the given attempt (from 1).

        The next ones of its shard in a circle; when all of the shard have been tried, the ones after it.
        """
        shard = int(np.searchsorted(self._starts, sample, side="right")) - 1
        start, size = int(self._starts[shard]), int(self.shard_sizes[shard])
        if attempt < size:
            return start + (sample - start + attempt) % size
        return (start + attempt) % self.images

    def lane_shards(self, epoch: int, lane: int) -> Int64[np.ndarray, " part"]:
        """The shards that a lane reads in an epoch, in the order in which it meets them."""
        with self._lock:
            plan = self._epoch(epoch)
        begin, end = plan.cuts[lane], plan.cuts[lane + 1]
        if begin == end:
            return np.empty(0, dtype=np.int64)
        low = int(np.searchsorted(plan.ends, begin, side="right")) - 1
        high = int(np.searchsorted(plan.ends, end - 1, side="right")) - 1
        part = plan.shards[low : high + 1]
        return part[self.shard_sizes[part] > 0]

    def stretches(self, epoch: int, lanes: Int64[np.ndarray, " some"]) -> Stretches:
        """What the given lanes read in an epoch, and when: work for each window, none for each image."""
        with self._lock:
            plan = self._epoch(epoch)
        lengths = np.diff(plan.cuts)[lanes]
        windows = -(-lengths // self.window)
        lane = np.repeat(np.arange(len(lanes)), windows)
        number = np.arange(len(lane)) - np.repeat(np.cumsum(windows) - windows, windows)
        begin, end = number * self.window, np.minimum((number + 1) * self.window, lengths[lane])
        start = epoch * self.images + (lanes - epoch * self.images) % self.lanes  # a lane's first position
        begins, ends = start[lane] + begin * self.lanes, start[lane] + (end - 1) * self.lanes + 1
        cut = plan.cuts[lanes][lane]
        first = np.searchsorted(plan.ends, cut + begin, side="right") - 1
        last = np.searchsorted(plan.ends, cut + end - 1, side="right")
        by_turn = np.argsort(begins, kind="stable")
        return Stretches(begins[by_turn], ends[by_turn], first[by_turn], last[by_turn], plan.shards)

    def _epoch(self, epoch: int) -> _Epoch:
        """The plan of an epoch, O(shards), remembered for a few epochs. The caller holds the lock."""
        if epoch in self._epochs:
            self._epochs.move_to_end(epoch)
            return self._epochs[epoch]
        shards = shuffled(stream(self.seed, "shards", epoch), len(self.shard_sizes))
        ends = np.concatenate([[0], np.cumsum(self.shard_sizes[shards])])
        skipped = (np.arange(self.lanes) - epoch * self.images) % self.lanes  # before a lane's first position
        counts = np.maximum(0, (self.images - skipped + self.lanes - 1) // self.lanes)
        plan = _Epoch(shards, ends, np.concatenate([[0], np.cumsum(counts)]))
        assert plan.cuts[-1] == self.images
        self._epochs[epoch] = plan
        if len(self._epochs) > EPOCHS_KEPT:
            self._epochs.popitem(last=False)
        return plan

    def _window(self, epoch: int, lane: int, number: int) -> Int64[np.ndarray, " length"]:
        """The samples of one window of a lane, shuffled."""
        name = (epoch, lane, number)
        with self._lock:
            if name in self._windows:
                self._windows.move_to_end(name)
                return self._windows[name]
            plan = self._epoch(epoch)
        begin = int(plan.cuts[lane]) + number * self.window
        length = min(self.window, int(plan.cuts[lane + 1]) - begin)
        places = begin + shuffled(stream(self.seed, "window", epoch, lane, number), length)
        shard = np.searchsorted(plan.ends, places, side="right") - 1
        samples = self._starts[plan.shards[shard]] + places - plan.ends[shard]
        with self._lock:
            self._windows[name] = samples
            while len(self._windows) > 2 * self.lanes:
                self._windows.popitem(last=False)
        return samples
