"""Images per second of a DINO step: this one against the specification written naively, side by side.

    python -m tests.benchmarks.step [--batch 8] [--repeats 7] [--precision bf16] [--compile] ...

Each side lives in a process of its own (so that peak memory is its own) and takes its steps in turn with the
other, which waits meanwhile; medians over the turns. CPU time is shown beside wall time, because other work
on the machine stretches the latter. A small pair is first shown to give the same loss.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from pipelines.batch import Batch
from raymask import step as step_module
from raymask.device import autocast_dtype, describe, peak_memory, pick_device, prepare, synchronise
from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods import dino as dino_module
from raymask.methods.dino import Dino, DinoMethod
from raymask.optim import Optim
from raymask.progress import Progress
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.benchmarks._naive_dino import NaiveNetwork, carry, naive_clip, naive_ema, naive_loss

CENTER_MOMENTUM, TEMPERATURE, MOMENTUM, CLIP = 0.9, 0.04, 0.996, 3.0
SHAPES = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}

Step = Callable[[int, Batch], None]


class Clock:
    """Seconds by part of the step."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str):
        synchronise(self.device)
        start = time.perf_counter()
        yield
        synchronise(self.device)
        self.seconds[part] += time.perf_counter() - start

    def timed(self, part: str, function: Callable) -> Callable:
        """`function`, its time counted under `part`."""

        def run(*positional, **named):
            with self(part):
                return function(*positional, **named)

        return run


def noise(options: argparse.Namespace, step: int, device: torch.device) -> Batch:
    """A batch of crops with pixels of a unit normal."""
    draw = torch.Generator().manual_seed(step)
    where = torch.arange(options.batch)
    sizes = {"global": (2, options.size), "local": (options.locals, options.local_size)}
    crops = {
        name: torch.randn(views, options.batch, 3, size, size, generator=draw)
        for name, (views, size) in sizes.items()
        if views
    }
    zeros = torch.zeros_like(where)
    return Batch(crops, zeros, where, zeros, where, step, options.batch, 0).to(device)


def naive(options: argparse.Namespace, clock: Clock, device: torch.device) -> Step:
    """The specification's step."""
    dim, depth, heads = SHAPES[options.model]
    head = {"hidden_dim": 2048, "bottleneck_dim": 256, "out_dim": options.prototypes}
    shape = {"size": options.size, "patch": options.patch, "dim": dim, "depth": depth, "heads": heads}
    torch.manual_seed(0)
    student = NaiveNetwork(**shape, drop_path=0.1, head=head).to(device).train()
    teacher = NaiveNetwork(**shape, drop_path=0.0, head=head).to(device).requires_grad_(False)
    teacher.load_state_dict(student.state_dict())
    learnt = [parameter for parameter in student.parameters() if parameter.requires_grad]
    optimiser = torch.optim.AdamW(learnt, lr=1e-4, foreach=False)
    center = torch.zeros(options.prototypes, device=device)

    def run(number: int, batch: Batch) -> None:
        groups = [list(crops) for crops in batch.crops.values()]
        with clock("teacher forward"):
            targets = teacher(groups[:1])
        with clock("student forward"):
            logits = student(groups)
        with clock("loss"):
            crops = 2 + options.locals
            loss = naive_loss(logits, targets, center, crops=crops, temperature=TEMPERATURE)
            center.mul_(CENTER_MOMENTUM).add_(targets.mean(0), alpha=1 - CENTER_MOMENTUM)
            loss.item()
        with clock("backward"):
            optimiser.zero_grad()
            loss.backward()
        with clock("clip"):
            naive_clip(student, CLIP)
        with clock("optimiser"):
            optimiser.step()
        with clock("teacher update"):
            naive_ema(teacher, student, MOMENTUM)

    return run


def ours(options: argparse.Namespace, clock: Clock, device: torch.device) -> Step:
    """The step of training."""
    dim, depth, heads = SHAPES[options.model]
    body = Backbone(
        image_size=options.size, patch_size=options.patch, dim=dim, depth=depth, heads=heads, drop_path=0.1
    )
    settings = Dino(head=Head(out_dim=options.prototypes))
    mask = Mask(views=options.views, kind=options.kind, ratio=options.ratio)
    method = DinoMethod(settings, body, mask, seed=0).to(device).train()
    if options.compile:
        method.student.backbone.compile(dynamic=False)
        method.teacher.backbone.compile(dynamic=False)
    optim = Optim(clip=CLIP, freeze_last_layer=0)
    optimiser = optim.build(method.student)
    dtype = autocast_dtype(device, options.precision)
    _clock_parts(clock, method, optimiser)

    def run(number: int, batch: Batch) -> None:
        step_module.train_step(
            method,
            batch,
            Progress(100 + number, 100_000, 1000),
            Rng(0, number),
            optimiser=optimiser,
            optim=optim,
            chunk=options.chunk,
            dtype=dtype,
        )

    return run


def _clock_parts(clock: Clock, method: DinoMethod, optimiser: torch.optim.Optimizer) -> None:
    """Times the parts where training calls them; each costs one reading of the clock."""
    method._teach = clock.timed("teacher forward", method._teach)
    method._study = clock.timed("student forward", method._study)
    dino_module.cross_view_loss = clock.timed("loss", dino_module.cross_view_loss)
    torch.Tensor.backward = clock.timed("backward", torch.Tensor.backward)
    step_module.clip_ = clock.timed("clip", step_module.clip_)
    optimiser.step = clock.timed("optimiser", optimiser.step)
    method.update_teacher = clock.timed("teacher update", method.update_teacher)


def work(side: str, options: argparse.Namespace) -> None:
    """A process of its own: takes a step for every line it reads, and answers with its time."""
    device = pick_device()
    if side == "ours":
        prepare(device)
    if options.threads:
        torch.set_num_threads(options.threads)
    clock = Clock(device)
    run = {"naive": naive, "ours": ours}[side](options, clock, device)
    for number, line in enumerate(sys.stdin):
        if line.strip() == "end":
            break
        batch = noise(options, number, device)
        clock.seconds.clear()
        start, cpu = time.perf_counter(), time.process_time()
        run(number, batch)
        synchronise(device)
        answer = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
        print(json.dumps(answer | {"parts": clock.seconds, "memory": peak_memory(device)}), flush=True)


def compare(options: argparse.Namespace) -> dict[str, list[dict]]:
    """Both sides in turn; the first step of each (memory, compilation) is set apart under "first"."""
    workers = {side: _start(side) for side in ("naive", "ours")}
    answers: dict[str, list[dict]] = {side: [] for side in workers}
    try:
        for _ in range(1 + options.repeats):
            for side, worker in workers.items():
                worker.stdin.write("go\n")
                worker.stdin.flush()
                answers[side].append(json.loads(worker.stdout.readline()))
    finally:
        for worker in workers.values():
            worker.communicate("end\n", timeout=60)
    return answers


def _start(side: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "tests.benchmarks.step", *sys.argv[1:], "--side", side]
    root = Path(__file__).parents[2]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root)


def tell(options: argparse.Namespace, answers: dict[str, list[dict]]) -> None:
    """The table."""
    device = pick_device()
    precision = autocast_dtype(device, options.precision) or torch.float32
    print(f"{describe(device)}, {_processor()}, torch {torch.__version__}")
    print(
        f"vit {options.model}/{options.patch}, 2x{options.size} + {options.locals}x{options.local_size}, "
        f"K = {options.prototypes}, batch {options.batch}, masks: {options.views} {options.kind} "
        f"{options.ratio}, {precision}{', compiled' if options.compile else ''}; "
        f"medians of {options.repeats} steps in turn"
    )
    speeds, busy = {}, {}
    for side, (first, *steps) in answers.items():
        seconds = statistics.median(step["seconds"] for step in steps)
        speeds[side] = options.batch / seconds
        busy[side] = statistics.median(step["cpu"] for step in steps)
        spread = sorted(options.batch / step["seconds"] for step in steps)
        print(
            f"{side:6s} {speeds[side]:7.2f} images/s ({spread[0]:.2f} to {spread[-1]:.2f}), "
            f"{busy[side]:.2f} s of CPU a step, peak memory {steps[-1]['memory'] / 2**30:.2f} GiB, "
            f"first step {first['seconds']:.1f} s"
        )
        for part in first["parts"]:
            middle = statistics.median(step["parts"][part] for step in steps)
            print(f"       {part:18s} {1000 * middle:8.1f} ms  {100 * middle / seconds:5.1f} %")
    print(
        f"ratio  {speeds['ours'] / speeds['naive']:.2f} of images/s, "
        f"{busy['naive'] / busy['ours']:.2f} of CPU time"
    )


def same_loss() -> tuple[float, float]:
    """The losses of a small pair with the same weights, crops and center, in float64: ours, as specified."""
    body = Backbone(image_size=32, patch_size=8, dim=24, depth=2, heads=2, drop_path=0.0)
    head = Head(hidden_dim=16, bottleneck_dim=8, out_dim=24)
    method = DinoMethod(Dino(head=head), body, Mask(views="none"), seed=0).double()
    with torch.no_grad():  # otherwise the networks agree and every image looks alike
        for parameter in method.student.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    options = argparse.Namespace(batch=3, size=32, locals=3, local_size=16)
    batch = noise(options, 0, torch.device("cpu"))
    crops = {name: group.double() for name, group in batch.crops.items()}
    shape = {"size": 32, "patch": 8, "dim": 24, "depth": 2, "heads": 2, "drop_path": 0.0}
    student, teacher = (NaiveNetwork(**shape, head=head.model_dump()).double() for _ in range(2))
    carry(method.student, student)
    carry(method.teacher, teacher)
    logits, targets = student([list(g) for g in crops.values()]), teacher([list(crops["global"])])
    expected = naive_loss(logits, targets, torch.zeros(24), crops=5, temperature=TEMPERATURE)
    report = method(replace(batch, crops=crops), Progress(0, 1, 1), Rng(0, 0))
    return report["loss"].item(), expected.item()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [x for x in info.read_text().splitlines() if x.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def parse() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", choices=list(SHAPES), default="small")
    parser.add_argument("--patch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--locals", type=int, default=8)
    parser.add_argument("--local-size", type=int, default=96)
    parser.add_argument("--prototypes", type=int, default=65536)
    parser.add_argument("--precision", choices=["auto", "float32", "bf16"], default="auto")
    parser.add_argument("--views", default="none", help="whom our step masks (mask.views)")
    parser.add_argument("--kind", default="drop", help="how (mask.kind)")
    parser.add_argument("--ratio", type=float, default=0.5, help="how much (mask.ratio)")
    parser.add_argument("--chunk", type=int, default=None)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--compile", action="store_true", help="compile our backbones")
    parser.add_argument("--side", choices=["naive", "ours"], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    chosen = parse()
    if chosen.side:
        work(chosen.side, chosen)
    else:
        mine, theirs = same_loss()
        print(f"loss of a small pair in float64: {mine:.12f} here, {theirs:.12f} as specified")
        assert abs(mine - theirs) < 1e-10
        tell(chosen, compare(chosen))
