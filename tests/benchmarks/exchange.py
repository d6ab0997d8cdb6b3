"""What ranks tell each other in a step, by DDP and by FSDP2: counted on two processes, beside the formula.

    python -m tests.benchmarks.exchange

The formula is what docs/scaling.md plans with. Counted are the collectives of the second step of a small DINO
on two CPU processes; they are the same for any size and any device, only their bytes differ.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from raymask.layer import Layer
from raymask.parallel import Parallel, bare
from tests.benchmarks._machine import machine
from tests.benchmarks.order import table
from tests.raymask.tiny_run import RECIPE, pictures

FLOAT32 = 4
PASSES = 2  # groups of views that the student sees one after the other: global and local crops
_PLACES = ("data.train={folder}/pictures", "run.root={folder}/{sharing}", "train.sharing={sharing}")
_LENGTH = (
    "train.steps=2",
    "train.checkpoint_images=99999",
    "evaluate.every_images=99999",
    "train.log_steps=1",
)


@dataclass(frozen=True)
class Weights:
    """How many the student has in its blocks, and outside of them with its head; the teacher has as many."""

    blocks: int
    rest: int


def ddp(weights: Weights, *, members: int) -> float:
    """Bytes that each of `members` sends in a step: an all-reduce of the gradients, as a ring does it."""
    return 2 * _share(members) * FLOAT32 * (weights.blocks + weights.rest)


def fsdp2(weights: Weights, *, members: int) -> float:
    """Bytes that each of `members` sends in a step.

    Blocks are gathered for each pass and again backward, the teacher's once; what is outside of the blocks
    once for student and teacher together. Gradients are scattered once. Left out is the block that is fetched
    ahead in vain in each step.
    """
    gathered = (2 * PASSES + 1) * weights.blocks + 2 * weights.rest
    return _share(members) * FLOAT32 * (gathered + weights.blocks + weights.rest)


def _share(members: int) -> float:
    return (members - 1) / members


class Collectives(TorchDispatchMode):
    """Counts the bytes that this rank sends, by kind of collective, small sums of metrics left out."""

    least = 1024

    def __init__(self, members: int) -> None:
        super().__init__()
        self.members = members
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        name = str(func).removeprefix("c10d.").partition(".")[0]
        sizes = {"allreduce_": 2.0, "_allgather_base_": 1.0, "_reduce_scatter_base_": 1.0}
        if name in sizes:
            whole = max(each.numel() * each.element_size() for each in _tensors(args))
            if whole >= self.least:
                self.bytes[name.strip("_")] += round(sizes[name] * _share(self.members) * whole)
        return func(*args, **(kwargs or {}))


def _tensors(value: Any) -> list[torch.Tensor]:
    if torch.is_tensor(value):
        return [value]
    return [each for part in value for each in _tensors(part)] if isinstance(value, list | tuple) else []


def weights_of(method: torch.nn.Module) -> Weights:
    """Those of a method's student, by what has gradients."""
    blocks = {id(each) for part in method.modules() if isinstance(part, Layer) for each in part.parameters()}
    trained = [each for each in method.parameters() if each.requires_grad]
    inside = sum(each.numel() for each in trained if id(each) in blocks)
    return Weights(inside, sum(each.numel() for each in trained) - inside)


def count(sharing: str, folder: str) -> None:
    """One of two ranks: trains two steps; the first writes what it sent in the second, and its weights."""
    from raymask import fit
    from raymask.config import load
    from raymask.train import train

    step, found = fit.train_step, dict[str, Any]()

    def counted(method: Parallel, *words: Any, **settings: Any) -> Any:
        with Collectives(2) as sent:
            values = step(method, *words, **settings)
        found.update(sent=dict(sent.bytes), weights=asdict(weights_of(bare(method))))
        return values

    fit.train_step = counted
    changes = [word.format(folder=folder, sharing=sharing) for word in (*_PLACES, *_LENGTH)]
    train(load(f"{folder}/tiny.yaml", changes))
    if os.environ["RANK"] == "0":
        Path(folder, f"{sharing}.json").write_text(json.dumps(found))


def counted() -> dict[str, dict[str, Any]]:
    """By sharing: what a rank of two sent in a step, by kind of collective, and what it trains."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "tiny.yaml").write_text(RECIPE)
        pictures(Path(folder, "pictures"))
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
        launcher += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "tests.benchmarks.exchange"]
        for sharing in FORMULAS:
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            subprocess.run(
                [*launcher, sharing, folder], env=environment, check=True, capture_output=True, timeout=300
            )
        return {name: json.loads(Path(folder, f"{name}.json").read_text()) for name in FORMULAS}


def main() -> None:
    if len(sys.argv) == 3:
        return count(*sys.argv[1:])
    rows = []
    for sharing, found in counted().items():
        expected = FORMULAS[sharing](Weights(**found["weights"]), members=2)
        kinds = ", ".join(f"{kind} {sent:,}" for kind, sent in sorted(found["sent"].items()))
        rows.append([sharing, kinds, f"{sum(found['sent'].values()):,}", f"{expected:,.0f}"])
    print(machine())
    print(table(["train.sharing", "bytes that a rank of two sends in a step", "together", "formula"], rows))
    return None


FORMULAS = {"ddp": ddp, "fsdp2": fsdp2}

if __name__ == "__main__":
    main()
