"""How many shards a loader keeps open: those that its order reads at one time, as far as files go round."""

import resource

import numpy as np

from pipelines.formats.joined import parts_of
from pipelines.formats.sharded import OPEN_SHARDS, ShardSource
from pipelines.reading import Reading
from pipelines.source import Source

WINDOWS = 2  # of each lane: the one that is read, and the one that comes next
SHARE = 0.5  # of the files that this process may open; the rest is for other data sets, sockets and libraries


def keep_what_is_read(source: Source, reading: Reading, *, start: int) -> None:
    """Lets shards stay open for as long as `reading`, from position `start` on, comes back to them.

    Memory depends on lanes, window and the images in a shard, not on how many shards there are.
    """
    parts = list(parts_of(source, ShardSource))
    counts = [max(OPEN_SHARDS // len(parts), _at_once(first, part, reading, start)) for first, part in parts]
    for (_, part), count in zip(parts, counts):
        part.keep(count, files=max(1, min(count, files() * count // sum(counts))))


def files() -> int:
    """Files that shards may take."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return int(SHARE * (1 << 20 if most == resource.RLIM_INFINITY else most))


def _at_once(first: int, part: ShardSource, reading: Reading, start: int) -> int:
    """Shards of a part that the lanes need at one time, now and next."""
    ones = np.zeros(len(reading.order.shard_sizes), np.int64)
    ones[first : first + len(part.shards)] = 1
    return WINDOWS * reading.most_at_once(ones, start // reading.order.images)
