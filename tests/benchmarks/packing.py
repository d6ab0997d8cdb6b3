"""Packing beside its limit: the time that decoding and encoding alone take on as many cores.

    python -m tests.benchmarks.packing photos.zip [--workers 2] [--repeats 3] [--copies 4]

The limit is measured first, then after each pack again, in this process and on the same images: one thread,
no reading, no writing, no checksums; it counts processor time, and so does the pack (its processes included).
Wall time is told as well; on a machine that does other work it says little.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

from pipelines.gain import gain
from pipelines.hands import How, OwnHand
from pipelines.pack import Packing, pack
from pipelines.preparing import ready
from pipelines.source import Source, open_source


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--copies", type=int, default=4, help="how often the images are packed, as one data set"
    )
    options = parser.parse_args()
    print("| what | format | limit, images a CPU s | pack, images a CPU s | share | pack, images/s, wall |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        root = copies(open_source(options.data), Path(place) / "images", options.copies)
        for what, changes in (("as they are", {}), ("long side 256", {"max_side": 256})):
            for form in ("webdataset", "ffcv"):
                row(
                    root, Path(place), what, Packing(format=form, **changes), options.workers, options.repeats
                )
        packed = pack(
            root, Path(place) / "last", Packing(max_side=256), workers=options.workers, progress=False
        )
        print(f"\n{gain(root, packed)}")


def copies(source: Source, root: Path, count: int) -> Path:
    """A folder with every image of a source `count` times."""
    root.mkdir()
    for sample in range(len(source)):
        for copy in range(count):
            (root / f"{copy}-{sample:05d}.jpg").write_bytes(source.read(sample))
    return root


def row(root: Path, place: Path, what: str, packing: Packing, workers: int, repeats: int) -> None:
    """Prints the medians of one way to pack."""
    source = open_source(root)
    limits, packs, walls = [limit(source, packing)], [], []
    for number in range(repeats):
        out = place / f"{what}-{packing.format}-{number}".replace(" ", "-")
        cpu, wall = cpu_seconds(), time.perf_counter()
        pack(root, out, packing, workers=workers, progress=False)
        walls.append(len(source) / (time.perf_counter() - wall))
        packs.append(len(source) / (cpu_seconds() - cpu))
        limits.append(limit(source, packing))
    most, reached = median(limits), median(packs)
    print(
        f"| {what} | {packing.format} | {most:.0f} | {reached:.0f} | {reached / most:.0%} "
        f"| {median(walls):.0f} |"
    )


def cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in parts)


def limit(source: Source, packing: Packing, *, images: int = 128) -> float:
    """Images that one thread decodes, and where needed shrinks and encodes, in a second of processor time."""
    files = [source.read(number) for number in range(0, len(source), max(1, len(source) // images))]
    how = How(packing.max_side, packing.max_pixels, packing.baseline)
    hand = OwnHand(how)
    ready(files[0], how, hand)  # loads what is compiled
    begun = time.thread_time()
    for data in files:
        ready(data, how, hand)
    return len(files) / (time.thread_time() - begun)


if __name__ == "__main__":
    main()
