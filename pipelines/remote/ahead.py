"""Fetches remote shards before they are read: threads that walk what a rank will read, one window ahead.

It changes when bytes arrive, never which: a read fetches for itself what is not there.
"""

import os
import threading
import time

from pipelines.formats.joined import parts_of
from pipelines.index import ShardError
from pipelines.reading import Reading
from pipelines.remote.cache import NoRoom
from pipelines.remote.shards import RemoteShards
from pipelines.source import Source

WAKE = 0.5  # seconds between two looks for room in a full cache
FAREWELL = 5.0  # seconds that threads in the middle of a request may take to end


class Ahead:
    """Threads that fetch what `reading` needs from position `start` to `end`; none where nothing is remote.

    Raises ValueError where a cache cannot hold what the lanes read at one time.
    """

    def __init__(self, source: Source, reading: Reading, *, start: int, end: int) -> None:
        self._end = end
        self._reading, self._position, self._tidied = reading, start, start
        self._parts = list(parts_of(source, RemoteShards))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        if self._parts:
            self._needs = reading.needs(start)
            self._next = next(self._needs)
        for first, part in self._parts:
            _check_room(first, part, reading, start)
            part.follow(self._uses_of(first, part), self._stop)
        threads = sum(part.cache.fetches for _, part in self._parts)
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def reach(self, position: int) -> None:
        """Says that everything before `position` has been read."""
        with self._changed:
            self._position = position
            self._changed.notify_all()

    def close(self) -> None:
        """Ends the threads, and reads that wait for the network; safe to call twice."""
        self._stop.set()
        with self._changed:
            self._changed.notify_all()
        end = time.monotonic() + FAREWELL
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        for _, part in self._parts:
            part.unfollow(self._stop)

    def _work(self) -> None:
        while (claim := self._claim()) is not None:
            needed, shard = claim
            first, part = next(found for found in reversed(self._parts) if found[0] <= shard)
            if shard - first < len(part.shards):
                self._fetch(part, shard - first, needed)

    def _fetch(self, part: RemoteShards, number: int, needed: int) -> None:
        while not self._stop.is_set():
            try:
                return part.fetch(number, needed)
            except NoRoom:
                self._tidy()
                with self._changed:
                    if self._position > needed:
                        return None  # overtaken: its reader fetches it
                    self._changed.wait(WAKE)
            except (ShardError, OSError):
                return None  # the read that needs it tries again, and says so
        return None

    def _claim(self) -> tuple[int, int] | None:
        """The next shard of the coming window of each lane, waiting for one; None at the end."""
        while True:
            with self._changed:
                if self._stop.is_set() or self._next[0] >= self._end:
                    return None
                if self._next[0] <= self._position + self._reading.generation:
                    claim, self._next = self._next, next(self._needs)
                    return claim
                self._changed.wait()
            self._tidy()

    def _tidy(self) -> None:
        """Lets go of shards that are not needed soon; several times a window is often enough."""
        with self._changed:
            if self._position - self._tidied < self._reading.generation // 8:
                return
            self._tidied = self._position
        for _, part in self._parts:
            part.let_go(self._position + self._reading.generation)

    def _uses_of(self, first: int, part: RemoteShards):
        """When each shard of `part` is needed next, as of now."""
        return lambda: self._reading.next_uses(self._position)[first : first + len(part.shards)]


def _check_room(first: int, part: RemoteShards, reading: Reading, start: int) -> None:
    sizes = reading.order.shard_sizes * 0
    sizes[first : first + len(part.shards)] = [shard.bytes for shard in part.shards]
    # Processes of one machine share the cache, and read different lanes unless each reads all of them.
    processes = min(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), reading.order.lanes // len(reading.lanes))
    needed = reading.most_at_once(sizes, start // reading.order.images) * processes
    if needed > part.cache.bound:
        raise ValueError(
            f"the cache may hold {part.cache.bound / 1e9:g} GB, but {len(reading.lanes) * processes} lanes "
            f"read {needed / 1e9:.3g} GB of shards at one time: raise data.cache.gb (twice that is best), "
            "lower data.shuffle_window, or use more processes"
        )
