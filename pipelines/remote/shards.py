"""Shards behind URLs as one data set: whole shards come into the cache when they are read, or before."""

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache as once
from functools import cached_property

import numpy as np
from jaxtyping import Int64

from pipelines.formats.held import OpenShard
from pipelines.formats.sharded import ShardSource
from pipelines.index import ShardError, ShardIndex, quick_check
from pipelines.manifest import Shard
from pipelines.notes import NOTHING, Notes
from pipelines.regular import is_passing
from pipelines.remote.cache import NEVER, NoRoom, ShardCache, Spare
from pipelines.remote.download import download
from pipelines.remote.indexes import RemoteIndexes
from pipelines.remote.wanted import Wanted

# n: samples   s: shards

AT_ONCE = 16  # indexes that are fetched at once
ROOM_POLL = 0.2  # seconds between two looks for room in the cache
CLOSED = "the loader was closed"

Uses = Callable[[], Int64[np.ndarray, " s"]]


class RemoteShards(ShardSource):
    """Images in remote shards: `wanted` has one file for each of `shards`. Thread-safe."""

    def __init__(
        self,
        wanted: Sequence[Wanted],
        shards: tuple[Shard, ...],
        classes: list[str],
        *,
        cache: ShardCache,
        indexes: RemoteIndexes,
        notes: Notes = NOTHING,
    ) -> None:
        super().__init__([one.public for one in wanted], shards, classes, {}, notes=notes)
        self.wanted, self.cache, self._indexes = wanted, cache, indexes
        self._uses: Uses | None = None
        self._stop = threading.Event()

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The labels of all images; fetches every index, but no shard that has one."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return np.concatenate(list(pool.map(lambda n: self._index(n).labels, range(len(self.shards)))))

    def follow(self, uses: Uses, stop: threading.Event) -> None:
        """From now on gives up first what `uses` (when each shard is needed next) puts furthest away.

        stop: ends what waits for the network, when it is set
        """
        self._uses, self._stop = uses, stop

    def unfollow(self, stop: threading.Event) -> None:
        """Ends what `follow` began with the same `stop`, unless another began since."""
        if self._stop is stop:
            self._uses, self._stop = None, threading.Event()

    def fetch(self, number: int, needed: int) -> None:
        """Brings a shard that is needed at position `needed`. Raises NoRoom where what is needed sooner fills
        the cache."""
        if number not in self._open:
            self._keep(number, self._brought(number, self._spare(after=needed)))

    def let_go(self, beyond: int) -> None:
        """Holds no longer what is not needed before the position `beyond`; the copies stay until room is."""
        if self._uses is None:
            return
        uses = self._uses()
        with self._lock:
            for number in [number for number in self._open if uses[number] > beyond]:
                del self._open[number]

    def _stored(self, number: int) -> ShardIndex:
        return self._indexes.of(self.wanted[number], stop=self._stop)

    def _opened(self, number: int) -> OpenShard:
        """The shard, fetched now if it is not there: whatever nobody holds makes way."""
        waited, patience = 0.0, self.cache.patience
        while True:
            try:
                return self._brought(number, self._spare(after=-1))
            except NoRoom:
                if self._release_one():
                    continue
            if self._stop.wait(ROOM_POLL):
                raise ShardError(CLOSED)
            if waited > patience:
                raise ShardError(
                    f"shard {self.paths[number]} finds no room in the cache {self.cache.folder}: all of it "
                    "is in use, or its disk is full: make room there, or raise data.cache.gb"
                )
            waited += ROOM_POLL

    def _brought(self, number: int, spare: Spare) -> OpenShard:
        wanted, stop, index = self.wanted[number], self._stop, self._index(number)

        def mismatch(file: int) -> str | None:
            same = quick_check(file, os.fstat(file).st_size) == index.quick
            return None if same else "its index describes another file"

        def complete(file: int) -> None:
            download(wanted, file, seconds=self.cache.patience, stop=stop, check=mismatch)

        try:
            return OpenShard(self.cache.hold(wanted, complete, spare=spare, stop=stop), index)
        except OSError as error:
            if is_passing(error):
                raise  # whoever reads an image waits for it
            raise ShardError(
                f"shard {wanted.public} cannot be stored in the cache {self.cache.folder}: {error.strerror}"
            ) from None

    def _release_one(self) -> bool:
        """Lets go of the open shard that is needed last; False where none is open."""
        uses = self._uses() if self._uses else None
        with self._lock:
            if not self._open:
                return False
            last = next(iter(self._open)) if uses is None else max(self._open, key=lambda n: int(uses[n]))
            del self._open[last]
            return True

    def _spare(self, *, after: int) -> Spare:
        """When copies are needed next; none of those that are at the position `after` or sooner is spare."""
        following = self._uses

        @once
        def uses() -> Int64[np.ndarray, " s"]:
            assert following is not None
            return following()

        def next_use(name: str) -> float | None:
            number = self._numbers_by_name.get(name)
            if following is None or number is None:
                return NEVER
            use = int(uses()[number])
            return use if use > after else None

        return next_use

    @cached_property
    def _numbers_by_name(self) -> dict[str, int]:
        return {wanted.name: number for number, wanted in enumerate(self.wanted)}
