"""Images a second of one core, and of two: this loader in its three modes beside those a user could take.

python -m tests.benchmarks.loader PHOTOS [--images 256] [--rounds 5] [--small] [--plot FILE]

All read the same files and give DINO's views, 2 x 224 + 8 x 96 (2 x 28 + 4 x 12 with --small). What a mode
leaves to the training device is not counted: it is what the GPU does while the CPU decodes. On one core time
is CPU time of the process and of those that it starts, so that other work on the machine matters less; on two
it is the clock's. Each loader has a process of its own (_contestant.py), they take turns, and medians count.
What cannot run here is named with its reason; `pip install raymask[rivals]` gets what pip can.
"""

import argparse
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch

from pipelines.crops import MultiCrop
from pipelines.source import open_source
from tests.benchmarks._contestant import BATCH, MODES, OURS, SMALL, Contestant, Pass, ours, seconds
from tests.benchmarks._loader_stages import floor, stages
from tests.benchmarks._machine import machine
from tests.benchmarks._rivals import EVERYONE, Rival, official, why_not

OFFICIAL = official.IN_A_LOADER.name
TIMES = 4  # a pass of ours is so much longer than one of a slow loader's, to take as long


def compare(
    data: str, names: list[str], threads: int, images: int, rounds: int, small: bool
) -> dict[str, Pass]:
    """The medians of each loader's passes, after one that compiles and warms up."""
    found: dict[str, list[Pass]] = {name: [] for name in names}
    with ExitStack() as open_until_here:
        everyone = [Contestant(data, name, threads=threads, small=small) for name in names]
        for one in everyone:
            open_until_here.callback(one.close)
        for turn in range(rounds + 1):
            print(f"{threads or 1} at once: {f'round {turn}' if turn else 'compiling'}", file=sys.stderr)
            for one in everyone:
                passed = one.over(images * TIMES if one.name in OURS else images)
                if turn:
                    found[one.name].append(passed)
    return {name: _median(passes) for name, passes in found.items()}


def _median(passes: list[Pass]) -> Pass:
    return Pass(
        core=median(one.core for one in passes),
        wall=median(one.wall for one in passes),
        moved=passes[-1].moved,
        peak=max(one.peak for one in passes),
    )


def scaling(data: str, images: int, rounds: int, small: bool) -> dict[str, tuple[Pass, Pass]]:
    """By mode, with one thread and with two, taken in turn."""
    with ExitStack() as open_until_here:
        pairs = {}
        for name in OURS:
            pairs[name] = [Contestant(data, name, threads=threads, small=small) for threads in (1, 2)]
            for one in pairs[name]:
                open_until_here.callback(one.close)
        passes: dict[str, list[list[Pass]]] = {name: [[], []] for name in OURS}
        for _ in range(rounds):
            for name, pair in pairs.items():
                for place, one in enumerate(pair):
                    passes[name][place].append(one.over(images * TIMES))
    return {mode: (_median(passes[name][0]), _median(passes[name][1])) for name, mode in OURS.items()}


def table(one: dict[str, Pass], two: dict[str, Pass], missing: dict[str, str]) -> str:
    """Markdown, in ascending order of speed, with what could not run at the end."""
    differs = {rival.name: rival.differs for rival in EVERYONE}
    rows = [
        "| loader | images/s of a core | ratio | images/s on two | ratio | MB to the device an image "
        "| peak GiB | otherwise than the recipe |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in sorted(one.items(), key=lambda item: item[1].core):
        ratio = found.core / one[OFFICIAL].core
        on_two = "| | "
        if name in two:
            on_two = f"| {two[name].wall:.1f} | {two[name].wall / two[OFFICIAL].wall:.1f}x"
        memory = f"{found.peak / 2**30:.2f}"
        cells = f"{found.core:.1f} | {ratio:.1f}x {on_two} | {found.moved / 1e6:.2f} | {memory}"
        rows.append(f"| {name} | {cells} | {differs.get(name, '')} |")
    rows += [f"| {name} | not measured: {reason} | | | | | | |" for name, reason in missing.items()]
    return "\n".join(rows)


def draw(results: dict[str, Pass], limit: float, file: Path) -> None:
    """A bar for each loader, and the limit that entropy decoding sets."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    named = sorted(results.items(), key=lambda item: item[1].core)
    figure, axes = pyplot.subplots(figsize=(8, 0.4 * len(named) + 1.2), layout="constrained")
    axes.barh([name for name, _ in named], [found.core for _, found in named], color="#4477aa")
    axes.axvline(limit, color="#cc6677", linestyle="--", label="decoding alone")
    axes.set_xlabel("images/s of one core")
    axes.legend(loc="lower right")
    figure.savefig(file)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", help="a folder of images, shards or an archive")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--one", action="store_true", help="leave out what runs on two cores")
    parser.add_argument("--plot", type=Path)
    return parser.parse_args()


def main() -> None:
    asked = arguments()
    torch.set_num_threads(1)
    source = open_source(asked.photos)
    crops = SMALL if asked.small else MultiCrop()
    images = min(asked.images, len(source)) // BATCH * BATCH
    print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {images} images of ", end="")
    print(f"{source.stored_bytes / len(source) / 1e3:.0f} kB\n")
    for mode in MODES:
        begun = seconds()
        ours(source, crops, mode, 0)(BATCH)
        print(f"first use of {mode}: {seconds() - begun:.1f} s of CPU time (compiled once, then on disk)")
    reasons = {rival.name: why_not(rival) for rival in EVERYONE}
    able: list[Rival] = [rival for rival in EVERYONE if not reasons[rival.name]]
    given = (images, asked.rounds, asked.small)
    one = compare(asked.photos, [rival.name for rival in able] + list(OURS), 0, *given)
    both = [rival.name for rival in able if rival.in_two] + list(OURS)
    two = {} if asked.one else compare(asked.photos, both, 2, *given)
    print("\n" + table(one, two, {name: reason for name, reason in reasons.items() if reason}) + "\n")
    limit = floor(source, images)
    print(f"decoding to planes alone: {limit:.0f} images/s of a core")
    for name, mode in OURS.items():
        print(f"{mode}: {one[name].core / limit:.0%} of that; {stages(source, crops, mode, images)}")
    if not asked.one:
        for mode, (alone, pair) in scaling(asked.photos, *given).items():
            print(
                f"{mode}: {alone.wall:.0f} images/s with one thread, {pair.wall:.0f} with two: "
                f"{pair.wall / alone.wall:.2f} times; of CPU time {alone.core:.0f} and {pair.core:.0f}"
            )
    if asked.plot:
        draw(one, limit, asked.plot)


if __name__ == "__main__":
    main()
