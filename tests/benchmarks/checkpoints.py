"""How long training waits for a checkpoint: while it is copied, beside while it is written.

    python -m tests.benchmarks.checkpoints [--preset dino] [--backbone vit_small_patch16_224] [--repeats 5]

One process holds the method of a preset with its optimiser's moments, and writes checkpoints to a temporary
folder; medians of interleaved repeats, with what a checkpoint holds.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import torch

from raymask import state
from raymask.config import load
from raymask.disks import ALONE
from raymask.methods import build_method
from raymask.saving import CheckpointWriter
from raymask.world import World
from tests.benchmarks._machine import machine


def main() -> None:
    """Prints the seconds of both ways."""
    options = arguments()
    config = load(options.preset, [f"backbone.name={options.backbone}"])
    method = build_method(config)
    optimiser = config.optim.build(method.student)
    for parameter in method.student.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    with tempfile.TemporaryDirectory() as folder:
        writer = CheckpointWriter(Path(folder), world=World(), device=torch.device("cpu"), keep=1, disk=ALONE)
        blocked, whole = [], []
        for step in range(options.repeats + 1):
            begun = time.perf_counter()
            writer.write(
                step, state.snapshot(method=method, optimiser=optimiser, running={}, state={"step": step})
            )
            copied = time.perf_counter()
            writer.finish()
            blocked.append(copied - begun)
            whole.append(time.perf_counter() - begun)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
    waits, takes = median(blocked[1:]), median(whole[1:])
    print(f"{options.preset} with {options.backbone}, {size / 1e6:.0f} MB, {machine()}")
    print(f"training waits {waits:.2f} s of the {takes:.2f} s that a checkpoint takes ({waits / takes:.0%})")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="dino")
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--repeats", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
