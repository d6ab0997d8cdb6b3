"""How often reading in order opens a shard anew, and what that costs, beside a fixed number of open shards.

python -m tests.benchmarks.open_shards

Shares are counted over the first 300,000 images of an order over simulated shards; costs are measured on a
tar of 50 kB images, in processor time.
"""

import tarfile
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np

from pipelines.formats.sharded import OPEN_SHARDS, ShardSource
from pipelines.order import Order
from pipelines.reading import Reading
from pipelines.room import SHARE, WINDOWS
from pipelines.source import open_source

WINDOW, IMAGES, TIMES = 4096, 300_000, 200
SIZES = ((1_281, 1_000), (300, 4_270), (10_000, 128))
LIMITS = (1_024, 1 << 20)  # files that a process may open: what is common by hand and in containers


def reopened(shards: np.ndarray, most: int) -> float:
    """Share of reads whose shard is not among the `most` that were used last."""
    held: OrderedDict[int, None] = OrderedDict()
    missed = 0
    for shard in shards.tolist():
        missed += shard not in held
        held[shard] = None
        held.move_to_end(shard)
        if len(held) > most:
            held.popitem(last=False)
    return missed / len(shards)


def rows() -> list[str]:
    found = []
    for shards, each in SIZES:
        order = Order(np.full(shards, each), 0, WINDOW)
        needed = WINDOWS * Reading(order, rank=0, world=1).most_at_once(np.ones(shards, np.int64), 0)
        samples, _ = order.locate(np.arange(IMAGES))
        read = samples // each
        indexes = max(OPEN_SHARDS, needed)
        shares = [reopened(read, OPEN_SHARDS), reopened(read, indexes)]
        shares += [reopened(read, min(indexes, int(SHARE * limit))) for limit in LIMITS]
        cells = [f"{shards:,} x {each:,}", f"{indexes:,}", *(f"{share:.1%}" for share in shares)]
        found.append(f"| {' | '.join(cells)} |")
    return found


def cost(source: ShardSource, before: Callable[[], object]) -> float:
    """Milliseconds of a read after what `before` does, which does not count."""
    spent = 0.0
    for sample in range(TIMES):
        before()
        begun = time.process_time()
        source.read(sample)
        spent += time.process_time() - begun
    return spent / TIMES * 1e3


def costs() -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "one.tar"
        image = np.random.default_rng(0).bytes(50_000)
        with tarfile.open(path, "w") as tar:
            for number in range(1_000):
                for name, data in (("jpg", image), ("cls", b"1")):
                    member = tarfile.TarInfo(f"{number:06d}.{name}")
                    member.size = len(data)
                    tar.addfile(member, BytesIO(data))
        source = open_source(path)
        assert isinstance(source, ShardSource)
        source.read(0)

        def forget() -> None:
            source._open.clear()
            source._checked._found.clear()

        read = cost(source, lambda: None)
        whole, again = cost(source, forget), cost(source, source._open.clear)
    return f"a read: {read:.3f} ms; of a file opened again {again:.3f}, and compared anew {whole:.3f}"


def main() -> None:
    print(
        "| shards | indexes held | compared anew with 256 | now | opened anew, 1,024 files | of 1,048,576 |"
    )
    print("|---|---|---|---|---|---|")
    print("\n".join(rows()))
    print(costs())


if __name__ == "__main__":
    main()
