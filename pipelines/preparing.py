"""The images of a source on their way: read by threads, prepared by processes, handed over in order."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from pipelines.decode import BadSample
from pipelines.fetch import PATIENCE, fetched
from pipelines.hands import Hand, How, OwnHand
from pipelines.planes import plane_decoder
from pipelines.prepare import is_sequential, kind_of
from pipelines.source import Source

MANY = 500  # images from which processes are started: that takes as long as some hundred images
CHUNK = 16  # images of one task: enough to drown its overhead, few enough to bound the memory

_Either = Hand | OwnHand
_Get = Callable[[int], bytes]


@dataclass(frozen=True)
class Item:
    """An image ready to be stored, or the cause why it is not."""

    sample: int
    data: bytes
    extension: str
    cause: str = ""


def prepared(
    source: Source, samples: list[int], how: How, *, workers: int, patience: float = PATIENCE
) -> Iterator[Item]:
    """The samples, ready to be stored, in the order given; a few chunks are worked on ahead.

    A thread for each worker reads and decodes; where it is worth it, a process does what Pillow must,
    which would hold up the others. Raises ShardError where a whole shard is unusable, or a fault of the
    machine lasts for `patience` seconds.
    """
    stop = threading.Event()

    def get(sample: int) -> bytes:
        return fetched(source, sample, patience=patience, stop=stop)

    free = SimpleQueue[_Either]()
    hands = [Hand(how) if workers > 1 and len(samples) >= MANY else OwnHand(how) for _ in range(workers)]
    for hand in hands:
        free.put(hand)
    waiting: deque[Future[list[Item]]] = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="pack") as pool:
        try:
            for start in range(0, len(samples), CHUNK):
                waiting.append(pool.submit(_prepare_chunk, get, samples[start : start + CHUNK], how, free))
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        finally:
            stop.set()
            for future in waiting:
                future.cancel()
            pool.shutdown()
            for hand in hands:
                hand.close()


def _prepare_chunk(get: _Get, samples: list[int], how: How, free: "SimpleQueue[_Either]") -> list[Item]:
    hand = free.get()
    try:
        return [_prepare(get, sample, how, hand) for sample in samples]
    finally:
        free.put(hand)


def _prepare(get: _Get, sample: int, how: How, hand: _Either) -> Item:
    try:
        return Item(sample, *ready(get(sample), how, hand))
    except BadSample as error:
        return Item(sample, b"", "", error.cause)


def ready(data: bytes, how: How, hand: _Either) -> tuple[bytes, str]:
    """What to store of an image, and its extension. Raises BadSample.

    A JPEG is decoded as the loader does it, strictly and without the GIL; most need no more than that.
    """
    if kind_of(data) == "jpg":
        found = plane_decoder()(data, how.max_pixels)
        if not how.store:
            return b"", ""
        fits = how.max_side is None or max(found.height, found.width) <= how.max_side
        if fits and (is_sequential(data) or not how.baseline):
            return data, "jpg"
    return hand.prepare(data)
