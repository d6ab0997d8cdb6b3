"""Images a second of one core: this loader in its three modes beside the others that a user could take.

python -m tests.benchmarks.loader FOLDER [--images 128] [--rounds 3] [--small] [--threads 2] [--plot FILE]

All read the same files and give DINO's views, 2 x 224 + 8 x 96 (2 x 28 + 4 x 12 with --small). What a mode
leaves to the training device is not counted: it is what the GPU does while the CPU decodes. Time is CPU time
of the process and of those that it starts, so that other work on the machine matters less. The loaders take
turns, and the best round of each counts. Packages that are not installed are named and left out.
"""

import argparse
import resource
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.source import Source, open_source
from tests.benchmarks import _loader_others as others
from tests.benchmarks._loader_stages import floor, stages
from tests.benchmarks._machine import machine

MODES = ("cpu", "split", "device")
BATCH = 32


@dataclass(frozen=True)
class Contestant:
    """A loader by name; `run` passes over that many images and returns the bytes that go to the device.

    times: how much longer its round is, so that a fast loader's round takes as long as a slow one's
    """

    name: str
    run: Callable[[int], int]
    times: int = 1


def seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def ours(source: Source, crops: MultiCrop, mode: str, threads: int) -> Callable[[int], int]:
    def run(images: int) -> int:
        data = Data(crops=crops, threads=threads, augment=mode)
        moved = 0
        with Loader(data, source, batch=BATCH, seed=0, steps=images // BATCH) as loader:
            for batch in loader:
                moved += sum(tensor.nbytes for tensor in batch.tensors())
        return moved

    return run


def contestants(source: Source, crops: MultiCrop, threads: int) -> list[Contestant]:
    """Everyone that runs here, the official recipe first."""
    found = [Contestant(name, run) for name, run in others.found(source, crops, batch=BATCH)]
    return found + [
        Contestant(f"this loader, {mode}", ours(source, crops, mode, threads), times=8) for mode in MODES
    ]


def compare(everyone: list[Contestant], images: int, rounds: int) -> dict[str, tuple[float, int]]:
    """Images a CPU second (the best round) and bytes to the device an image, by name."""
    best: dict[str, tuple[float, int]] = {}
    for _ in range(rounds):
        for one in everyone:
            begun, passed = seconds(), images * one.times
            moved = one.run(passed)
            rate = passed / (seconds() - begun)
            best[one.name] = (max(rate, best.get(one.name, (0.0, 0))[0]), moved // passed)
    return best


def scaling(source: Source, crops: MultiCrop, images: int, rounds: int) -> dict[str, list[list[float]]]:
    """By mode, with one thread and with two, taken in turn: images a second of wall time, and of CPU time."""
    best = {mode: [[0.0, 0.0], [0.0, 0.0]] for mode in MODES}
    for _ in range(rounds):
        for mode in MODES:
            for place, threads in enumerate((1, 2)):
                wall, cpu = time.perf_counter(), seconds()
                ours(source, crops, mode, threads)(images)
                rates = images / (time.perf_counter() - wall), images / (seconds() - cpu)
                best[mode][place] = [max(pair) for pair in zip(best[mode][place], rates)]
    return best


def table(results: dict[str, tuple[float, int]]) -> str:
    """Markdown, in ascending order of speed."""
    official = results[others.OFFICIAL][0]
    rows = [
        "| loader | images/s of a core | ratio | MB to the device an image |",
        "| --- | --- | --- | --- |",
    ]
    for name, (rate, moved) in sorted(results.items(), key=lambda item: item[1][0]):
        rows.append(f"| {name} | {rate:.1f} | {rate / official:.1f}x | {moved / 1e6:.2f} |")
    return "\n".join(rows)


def draw(results: dict[str, tuple[float, int]], limit: float, file: Path) -> None:
    """A bar for each loader, and the limit that entropy decoding sets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    named = sorted(results.items(), key=lambda item: item[1][0])
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(named) + 1.2), layout="constrained")
    axes.barh([name for name, _ in named], [rate for _, (rate, _) in named], color="#4477aa")
    axes.axvline(limit, color="#cc6677", linestyle="--", label="decoding alone")
    axes.set_xlabel("images/s of one core")
    axes.legend(loc="lower right")
    figure.savefig(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0, help="of this loader; 0 is the calling thread")
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--no-scaling", action="store_true", help="leave out the two threads")
    parser.add_argument("--plot", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    source = open_source(asked.folder)
    small = MultiCrop(global_crops=Crops(size=28), local_crops=LocalCrops(count=4, size=12))
    crops = small if asked.small else MultiCrop()
    images = min(asked.images, len(source)) // BATCH * BATCH
    print(f"{machine()}, {images} images of {source.stored_bytes / len(source) / 1e3:.0f} kB\n")
    for mode in MODES:
        begun = seconds()
        ours(source, crops, mode, 0)(BATCH)
        print(
            f"first use of {mode}: {seconds() - begun:.1f} s of CPU time (compiled once, then kept on disk)"
        )
    results = compare(contestants(source, crops, asked.threads), images, asked.rounds)
    print("\n" + table(results) + "\n")
    limit = floor(source, images)
    print(f"decoding to planes alone: {limit:.0f} images/s of a core")
    for mode in MODES:
        share = results[f"this loader, {mode}"][0] / limit
        print(f"{mode}: {share:.0%} of that; {stages(source, crops, mode, images)}")
    if not asked.no_scaling:
        for mode, (one, two) in scaling(source, crops, 4 * images, asked.rounds).items():
            print(
                f"{mode}: {one[0]:.0f} images/s with one thread, {two[0]:.0f} with two: "
                f"{two[0] / one[0]:.2f} times; of CPU time {one[1]:.0f} and {two[1]:.0f}"
            )
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    if asked.plot:
        draw(results, limit, asked.plot)


if __name__ == "__main__":
    main()
