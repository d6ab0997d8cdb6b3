"""What a source holds of its shards: open files, and the indexes that were found to fit them."""

import os
import threading
from collections import OrderedDict

from pipelines.index import ShardIndex

Mark = tuple[int, int, int, int]


class OpenFile:
    """A descriptor; closes when the last reader has let go of it."""

    def __init__(self, file: int) -> None:
        self.file = file

    def __del__(self) -> None:
        os.close(self.file)


class OpenShard(OpenFile):
    """The descriptor of a shard, and its index."""

    def __init__(self, file: int, index: ShardIndex) -> None:
        super().__init__(file)
        self.index = index


def mark(file: int) -> Mark:
    """What an open file is known by, as long as nobody writes to it or puts another in its place."""
    about = os.fstat(file)
    return about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns


class Checked:
    """Indexes that were compared with their shards, so that a file that is opened again need not be.

    Holds `most` of them; what was used longest ago goes first. Thread-safe.
    """

    def __init__(self, most: int) -> None:
        self._found: OrderedDict[int, tuple[Mark, ShardIndex]] = OrderedDict()
        self._lock = threading.Lock()
        self.most = most

    def get(self, number: int) -> tuple[Mark, ShardIndex] | None:
        """The index of a shard, and the mark of the file that it was compared with."""
        with self._lock:
            if number in self._found:
                self._found.move_to_end(number)
            return self._found.get(number)

    def add(self, number: int, shard: OpenShard) -> None:
        """Takes note that an index fits its open file."""
        with self._lock:
            self._found[number] = mark(shard.file), shard.index
            self._found.move_to_end(number)
            while len(self._found) > self.most:
                self._found.popitem(last=False)
