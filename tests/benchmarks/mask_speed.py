"""Does dropping patches save the time that it saves in arithmetic? Measured speed-up over theoretical.

    python -m tests.benchmarks.mask_speed [--methods dino maskedkd mae dmjd] [--images 4] [--repeats 3] ...

For each method whose hidden patches leave the sequence: forward and backward of a step over several mask
ratios, at 224 pixels and patch 16, against the multiply-accumulates that `raymask.flops` counts. The points
of a method take their steps in turn; medians. CPU time stands beside wall time, because other work on the
machine stretches the latter. The update (clip, optimiser, moving average) costs the same whatever is hidden
and however many images the batch has; it is timed by itself.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.batch import Batch
from raymask.device import autocast, autocast_dtype, pick_device, prepare, synchronise
from raymask.flops import Cost
from raymask.methods.method import Method
from raymask.optim import Optim, clip_
from raymask.progress import Progress
from raymask.streams import Rng
from tests.benchmarks._mask_cases import CASES, PATCHES, SHAPES, Case

NOW = Progress(step=0, steps=10_000, steps_per_epoch=100)


@dataclass(frozen=True)
class Time:
    """Seconds of the clock and of this process."""

    wall: float
    cpu: float


@dataclass(frozen=True)
class Point:
    """What was measured at one mask ratio, a step."""

    visible: int
    cost: Cost
    time: Time


def measure(case: Case, options: argparse.Namespace) -> tuple[list[Point], Time]:
    """The points of a method, their steps taken in turn, and its update (after the first of them)."""
    device = pick_device()
    dtype = autocast_dtype(device, options.precision)
    batch = noise(case, options.images).to(device)
    methods = [case.build(ratio).to(device).train() for ratio in case.ratios]
    visible = [0] * len(methods)
    times: list[list[Time]] = [[] for _ in methods]
    for number in range(1 + options.repeats):
        for index, method in enumerate(methods):
            with timed(device, times[index]):
                with autocast(device, dtype):
                    report = method(batch, NOW, Rng(seed=0, step=number))
                report["loss"].backward()
            visible[index] = round(PATCHES * (1 - float(report["mask_ratio"])))
            if index or number < options.repeats:
                method.zero_grad(set_to_none=True)
    points = [
        Point(count, case.cost(count), middle(steps[1:])) for count, steps in zip(visible, times, strict=True)
    ]
    return points, update(methods[0], device, repeats=options.repeats)


@contextmanager
def timed(device: torch.device, times: list[Time]) -> Iterator[None]:
    """Appends the time of what it encloses to a list."""
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    synchronise(device)
    times.append(Time(time.perf_counter() - wall, time.process_time() - cpu))


def update(method: Method, device: torch.device, *, repeats: int) -> Time:
    """Clip, optimiser and teacher's moving average, with the gradients of the last step."""
    optim = Optim()
    times: list[Time] = []
    optimiser = optim.build(method.student)
    for _ in range(1 + repeats):
        with timed(device, times):
            clip_(optimiser, optim.clip)
            optimiser.step()
            method.update_teacher(NOW)
    return middle(times[1:])


def middle(times: list[Time]) -> Time:
    """Medians, each by itself."""
    return Time(statistics.median(t.wall for t in times), statistics.median(t.cpu for t in times))


def noise(case: Case, images: int) -> Batch:
    """Crops of a unit normal: the time does not depend on what is seen."""
    draw, who = torch.Generator().manual_seed(0), torch.arange(images)
    crops = {
        group: torch.randn(views, images, 3, size, size, generator=draw)
        for group, (views, size) in case.crops.items()
    }
    return Batch(crops, who % 10, who, torch.zeros_like(who), who, 0, images, 0)


HEADER = (
    "visible", "GMAC an image", "CPU s an image", "wall s an image",
    "theory", "CPU time", "wall time", "CPU / theory", "wall / theory",
)  # fmt: skip


def table(case: Case, points: list[Point], spent: Time, *, images: int) -> Iterator[str]:
    """A method's points as a Markdown table; speed-ups are over its first row."""
    yield f"\n**{case.title}**\n"
    yield "| " + " | ".join(HEADER) + " |"
    yield "|" + " --- |" * len(HEADER)
    first = points[0]
    for point in points:
        theory = first.cost.total / point.cost.total
        cpu, wall = first.time.cpu / point.time.cpu, first.time.wall / point.time.wall
        cells = (
            f"{point.visible}",
            f"{point.cost.total / 1e9:.1f}",
            f"{point.time.cpu / images:.3f}",
            f"{point.time.wall / images:.3f}",
            *(f"{ratio:.2f}x" for ratio in (theory, cpu, wall)),
            *(f"{100 * ratio / theory:.0f} %" for ratio in (cpu, wall)),
        )
        yield "| " + " | ".join(cells) + " |"
    yield f"\nUpdate (once a step, whatever is hidden): {spent.cpu:.3f} s of CPU, {spent.wall:.3f} s wall."


def plain(lines: Iterator[str]) -> Iterator[str]:
    """A Markdown table for a terminal: aligned columns, no rules."""
    for line in lines:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            yield line.replace("**", "")
        elif not cells[0].startswith("-"):
            yield "  ".join(f"{cell:>{len(name)}s}" for name, cell in zip(HEADER, cells, strict=True))


def machine(options: argparse.Namespace) -> str:
    """What this ran on, and how."""
    device = pick_device()
    precision = str(autocast_dtype(device, options.precision) or torch.float32).removeprefix("torch.")
    where = f"{_processor()}, {torch.get_num_threads()} thread(s)"
    if device.type == "cuda":
        where = f"{torch.cuda.get_device_name(device)} ({where})"
    return (
        f"{where}, torch {torch.__version__}, {precision}, {options.images} images a step, "
        f"medians of {options.repeats} steps taken in turn"
    )


def _processor() -> str:
    """The processor's name, where the system tells it."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor() or platform.machine()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--methods", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--model", choices=SHAPES, help="the student, instead of each method's own")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("auto", "float32", "bf16"), default="auto")
    parser.add_argument("--markdown", action="store_true")
    return parser.parse_args()


def main() -> None:
    """Prints the machine and a table a method."""
    options = arguments()
    prepare(pick_device(), threads=options.threads)
    print(machine(options))
    for name in options.methods:
        make, model = CASES[name]
        case = make(options.model or model)
        points, spent = measure(case, options)
        lines = table(case, points, spent, images=options.images)
        print("\n".join(lines if options.markdown else plain(lines)), flush=True)


if __name__ == "__main__":
    main()
