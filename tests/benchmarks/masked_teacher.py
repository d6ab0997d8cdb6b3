"""What dropping patches from the teacher saves, measured against the count of multiply-adds.

    python -m tests.benchmarks.masked_teacher [--images 8] [--repeats 4] [--teacher NAME] [--student NAME]
    python -m tests.benchmarks.masked_teacher --small --images 64      the networks of the study in arms.py

Times the teacher's forward pass alone, and a whole step of MaskedKD (the student forward and backward, its
attention, the choice of patches, the teacher), at 224 pixels (--small: 64) in float32 on one thread. Time is
the process's CPU time, which other processes disturb less than the clock; the least of the repeats counts.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import torch
from torch.utils.flop_counter import FlopCounterMode

from pipelines.batch import Batch
from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.vit import Backbone

COUNTS, SMALL_COUNTS = (196, 144, 98, 80, 49), (64, 48, 32, 16)
SMALL = {"patch_size": 8, "heads": 4}
NOW = Progress(step=0, steps=10, steps_per_epoch=5)


def main() -> None:
    """Prints a line for each count of kept patches."""
    options = arguments()
    torch.set_num_threads(1)
    counts = SMALL_COUNTS if options.small else COUNTS
    given = batch(options.images, side=64 if options.small else 224)
    places = torch.rand(options.images, counts[0], generator=torch.Generator().manual_seed(0)).argsort(1)
    print(
        f"teacher {options.teacher}, student {options.student}, {options.images} images, ms of CPU an image"
    )
    print("kept  teacher   speed-up (theory)       step   speed-up (theory)")
    full: tuple[float, ...] | None = None
    for count in counts:
        method = build(options, count)
        images, visible = given.crops["global"][0], places[:, :count].sort(1).values
        works = (partial(method.teacher, images, visible), partial(step, method, given))
        times = [least(work, options.repeats) / options.images * 1000 for work in works]
        costs = [flops(work) for work in works]
        full = full or (*times, *costs)
        ratios = [whole / part for whole, part in zip(full, (*times, *costs))]
        print(
            f"{count:4d} {times[0]:8.1f}   {ratios[0]:8.2f} ({ratios[2]:.2f})  "
            f"{times[1]:10.1f}   {ratios[1]:8.2f} ({ratios[3]:.2f})"
        )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--teacher", default="deit_small_patch16_224")
    parser.add_argument("--student", default="deit_tiny_patch16_224")
    parser.add_argument("--small", action="store_true")
    return parser.parse_args()


def batch(images: int, *, side: int) -> Batch:
    """Noise: the time does not depend on what is seen."""
    who = torch.arange(images)
    pixels = torch.randn(1, images, 3, side, side, generator=torch.Generator().manual_seed(0))
    return Batch({"global": pixels}, who % 10, who, torch.zeros_like(who), who, 0, images, 0)


def build(options: argparse.Namespace, count: int) -> MaskedKDMethod:
    """The method with untrained networks; all patches go through the same code as fewer."""
    side = 64 if options.small else 224
    cut = Crops(count=1, size=side, blur=0.0, solarise=0.0)
    crops = MultiCrop(global_crops=cut, local_crops=LocalCrops(count=0))
    teacher, student = FrozenNetwork(name=options.teacher), Backbone(name=options.student)
    if options.small:
        teacher = FrozenNetwork(name=options.teacher, dim=192, depth=6, **SMALL)
        student = Backbone(name=options.student, dim=96, depth=4, image_size=side, **SMALL)
    whole = count in (COUNTS[0], SMALL_COUNTS[0])
    settings = MaskedKD(
        classes=10 if options.small else 1000,
        teacher=teacher,
        keep=Keep(count=None if whole else count),
    )
    return MaskedKDMethod(settings, student, Mask(views="none"), crops, seed=0).train()


def step(method: MaskedKDMethod, given: Batch) -> None:
    """Forward and backward; the optimiser's share does not depend on the mask."""
    method.zero_grad()
    method(given, NOW, Rng(seed=0, step=0))["loss"].backward()


def least(work: Callable[[], object], repeats: int) -> float:
    """Seconds of CPU time of the fastest of some runs, the first of which only warms up."""
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times[1:])


def flops(work: Callable[[], object]) -> float:
    """Floating-point operations of matrix products, as torch counts them."""
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


if __name__ == "__main__":
    main()
