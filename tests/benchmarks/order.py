"""The sample order: what a seek costs at the size of ImageNet and of LAION, and how well a batch is mixed.

python -m tests.benchmarks.order

Sizes are simulated: a list of counts stands for the shards, as a manifest gives them. Times are
of the processor, the quickest of five. The second table counts
the distinct shards in a batch of 256, ours beside the shuffle buffer of the `webdataset` package itself.
"""

import argparse
import json
import random
import subprocess
import sys
import time
import tracemalloc

import numpy as np
from webdataset.filters import _shuffle

from pipelines.order import Order
from pipelines.reading import Reading
from pipelines.streams import stream

BATCH, WINDOW = 256, 4096
REPEATS = 5  # of which the quickest counts: the machine may be busy
SIZES = {
    "ImageNet-1k, 1,281 shards of 1,000": (1_281, 1_000),
    "LAION-2B, 200,000 shards of 10,000": (200_000, 10_000),
}
STEPS = 100  # batches, from all over an epoch, between two looks at the memory


def seek(sizes: np.ndarray, position: int) -> float:
    """Milliseconds of processor time of the first batch at a position, for an order that was just made."""
    times = []
    for _ in range(REPEATS):
        order = Order(sizes, 7, WINDOW)
        begun = time.process_time()
        order.locate(np.arange(position, position + BATCH))
        times.append(time.process_time() - begun)
    return min(times) * 1e3


def ahead(sizes: np.ndarray, position: int) -> float:
    """Milliseconds until one rank of eight knows which shard it needs first."""
    times = []
    for _ in range(REPEATS):
        reading = Reading(Order(sizes, 7, WINDOW), rank=0, world=8)
        begun = time.process_time()
        next(reading.needs(position))
        times.append(time.process_time() - begun)
    return min(times) * 1e3


def measure(shards: int, each: int) -> dict[str, float]:
    """Seeks in milliseconds and memory in MB, for one size."""
    stream(0, "compile")
    sizes, images = np.full(shards, each), shards * each
    late = int(3.99 * images) // BATCH * BATCH
    found = {"first": seek(sizes, 0), "resume": seek(sizes, late), "ahead": ahead(sizes, late)}
    found["memory"], found["later"] = memory(sizes)
    return found


def memory(sizes: np.ndarray) -> tuple[float, float]:
    """MB that an order holds after batches from all over three epochs, and after those of nine."""
    tracemalloc.start()
    order, held = Order(sizes, 7, WINDOW), []
    for epoch in range(9):
        for step in range(STEPS):
            position = epoch * len(order) + step * (len(order) // STEPS)
            order.locate(np.arange(position, position + BATCH))
        held.append(tracemalloc.get_traced_memory()[0] / 1e6)
    tracemalloc.stop()
    return held[2], held[8]


def mixed(shards: np.ndarray) -> float:
    """Distinct shards in a batch of 256, on average over an epoch given as shard numbers."""
    batches = shards[: len(shards) // BATCH * BATCH].reshape(-1, BATCH)
    return float(np.mean([len(np.unique(batch)) for batch in batches]))


def ours(shards: int, each: int, window: int, epoch: int = 1) -> float:
    order = Order([each] * shards, 7, window)
    images = shards * each
    samples, _ = order.locate(np.arange(epoch * images, (epoch + 1) * images))
    return mixed(samples // each)


def webdataset(shards: int, each: int, buffer: int) -> float:
    """One epoch through webdataset's own shuffle: shards permuted, then a buffer of samples."""
    permuted = list(range(shards))
    random.Random(0).shuffle(permuted)
    samples = (shard for shard in permuted for _ in range(each))
    return mixed(np.fromiter(_shuffle(samples, buffer, buffer, rng=random.Random(1)), np.int64))


def in_a_process(shards: int, each: int) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.benchmarks.order", "--one", str(shards), str(each)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def seeks() -> str:
    head = ["data set", "first batch", "resume at 99 % of epoch 4", "what to fetch first"]
    head += ["memory after three epochs", "after nine"]
    rows = []
    for name, size in SIZES.items():
        got = in_a_process(*size)
        times = [f"{got[key]:,.1f} ms" for key in ("first", "resume", "ahead")]
        rows.append([name, *times, *(f"{got[key]:,.1f} MB" for key in ("memory", "later"))])
    return table(head, rows)


def mixing(shards: int = 1281, each: int = 1000) -> str:
    rows = []
    for window in (1024, 4096, 16384):
        rows.append([f"raymask, shuffle_window={window}", f"{ours(shards, each, window):.1f}", "0"])
    for buffer in (1000, 5000, 20000):
        rows.append(
            [f"webdataset, shuffle({buffer})", f"{webdataset(shards, each, buffer):.1f}", f"{buffer:,}"]
        )
    permuted = np.random.default_rng(0).permutation(shards * each)
    rows.append(["a permutation of everything", f"{mixed(permuted // each):.1f}", f"{shards * each:,}"])
    return table(["order", "distinct shards in a batch of 256", "images held in memory for it"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, type=int, metavar=("SHARDS", "IMAGES"))
    chosen = parser.parse_args().one
    if chosen:
        print(json.dumps(measure(*chosen)))
        return
    print(seeks(), mixing(), sep="\n\n")


if __name__ == "__main__":
    main()
