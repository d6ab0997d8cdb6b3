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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.device import autocast, autocast_dtype, pick_device, prepare, synchronise
from raymask.flops import (
    BASE,
    LARGE,
    SMALL,
    TINY,
    Cost,
    Decoding,
    ProjectionHead,
    Views,
    Vit,
    dino_step,
    mae_step,
    maskedkd_step,
)
from raymask.frozen import FrozenNetwork
from raymask.heads import Head
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.keep import Keep
from raymask.methods.mae import Mae, MaeMethod
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method
from raymask.optim import Optim, clip_
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.streams import Rng
from raymask.vit import Backbone

PATCHES, LOCAL_PATCHES, LOCALS, PROTOTYPES, CLASSES = 196, 36, 8, 65536, 1000
SHAPES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE}
LARGER = {"tiny": "small", "small": "base", "base": "large"}
ONE_CROP = MultiCrop(global_crops=Crops(count=1, blur=0.0, solarise=0.0), local_crops=LocalCrops(count=0))
ALMOST_NONE = 0.0051  # MAE hides at least one patch: 195 of 196 stay
NOW = Progress(step=0, steps=10_000, steps_per_epoch=100)


@dataclass(frozen=True)
class Case:
    """A method at some mask ratios; `build` gives it ready to train, `cost` its step by visible patches."""

    title: str
    crops: dict[str, tuple[int, int]]  # group -> (views, pixels)
    ratios: tuple[float, ...]
    build: Callable[[float], Method]
    cost: Callable[[int], Cost]


def dino(model: str) -> Case:
    """The student's two global views lose patches; the teacher and eight local views do not."""

    def build(ratio: float) -> Method:
        hidden = {"views": "student_globals", "kind": "drop", "ratio": ratio} if ratio else {"views": "none"}
        settings = Dino(head=Head(out_dim=PROTOTYPES))
        return DinoMethod(settings, _backbone(model, 0.1), Mask(**hidden), seed=0)

    def cost(visible: int) -> Cost:
        return dino_step(
            SHAPES[model],
            ProjectionHead(prototypes=PROTOTYPES),
            global_crops=Views(2, PATCHES),
            local_crops=Views(LOCALS, LOCAL_PATCHES),
            visible=visible,
        )

    title = f"DINO, ViT-{model}/16, 2x224 + {LOCALS}x96, K = {PROTOTYPES}, student globals dropped"
    return Case(title, {"global": (2, 224), "local": (LOCALS, 96)}, (0.0, 0.25, 0.5, 0.75), build, cost)


def maskedkd(model: str) -> Case:
    """The frozen teacher loses patches; it is one size larger than the student."""
    student, teacher = _classifying(SHAPES[model]), _classifying(SHAPES[LARGER[model]])

    def build(ratio: float) -> Method:
        count = round(PATCHES * (1 - ratio))
        settings = MaskedKD(
            classes=CLASSES,
            teacher=FrozenNetwork(name=f"vit_{LARGER[model]}_patch16_224"),
            keep=Keep(count=None if count == PATCHES else Constant(value=count)),
        )
        return MaskedKDMethod(settings, _backbone(model, 0.1), Mask(views="none"), ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        return maskedkd_step(student, teacher, patches=PATCHES, kept=visible)

    title = f"MaskedKD, student ViT-{model}/16, teacher ViT-{LARGER[model]}/16 dropped"
    return Case(title, {"global": (1, 224)}, (0.0, 52 / 196, 0.5, 0.75), build, cost)


def mae(model: str) -> Case:
    """The encoder loses patches; the decoder sees them all."""

    def build(ratio: float) -> Method:
        mask = Mask(strategy=Disjoint(views=1, unit=1), kind="drop", ratio=ratio)
        return MaeMethod(Mae(), _backbone(model, 0.0), mask, ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        return mae_step(SHAPES[model], Decoding(), patches=PATCHES, visible=visible)

    title = f"MAE, ViT-{model}/16, decoder 512 x 8, encoder dropped"
    return Case(title, {"global": (1, 224)}, (ALMOST_NONE, 0.5, 0.75, 0.9), build, cost)


def dmjd(model: str) -> Case:
    """Two disjoint views of an image, each as MAE's, and the visible branch."""

    def build(ratio: float) -> Method:
        mask = Mask(strategy=Disjoint(views=2, unit=1), kind="drop", ratio=ratio)
        settings = Dmjd(decoder={"mlp_ratio": 4.0})
        return DmjdMethod(settings, _backbone(model, 0.0), mask, ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        decoder = Decoding(target=108, visible_branch=True)
        return mae_step(SHAPES[model], decoder, patches=PATCHES, visible=visible, views=2)

    title = f"DMJD, ViT-{model}/16, two views, decoder 512 x 8, HOG, encoder dropped"
    return Case(title, {"global": (1, 224)}, (ALMOST_NONE, 0.5, 0.75, 0.9), build, cost)


# method -> (its case, the model it is measured with)
CASES: dict[str, tuple[Callable[[str], Case], str]] = {
    "dino": (dino, "small"),
    "maskedkd": (maskedkd, "small"),
    "mae": (mae, "base"),
    "dmjd": (dmjd, "small"),
}


def _backbone(model: str, drop_path: float) -> Backbone:
    return Backbone(name=f"vit_{model}_patch16_224", drop_path=drop_path)


def _classifying(vit: Vit) -> Vit:
    return Vit(vit.dim, vit.depth, classes=CLASSES)


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


class timed:
    """Appends the time of what it encloses to a list."""

    def __init__(self, device: torch.device, times: list[Time]) -> None:
        self.device, self.times = device, times

    def __enter__(self) -> None:
        synchronise(self.device)
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        synchronise(self.device)
        self.times.append(Time(time.perf_counter() - self.wall, time.process_time() - self.cpu))


def update(method: Method, device: torch.device, *, repeats: int) -> Time:
    """Clip, optimiser and teacher's moving average, with the gradients of the last step."""
    optim, times = Optim(), list[Time]()
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
