"""metrics.jsonl: what a run measures, one JSON object a line, read from the device once an interval.

Within an interval everything is summed where it is computed; nothing waits for the device. The sums are
part of a checkpoint, so that a resumed run writes the lines that an unbroken one would have written.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pipelines.batch import Batch, add_signatures
from raymask.world import grouped, mean_across, sum_across

_MASK = (1 << 64) - 1


class Running:
    """Sums since the last line, on the device, of what `train_step` returns.

    sums: by name, float64; their mean over ranks is that of the global batch
    masks: signature of the hidden patches, int64 that wraps around; samples: that of the crops, on the host
    broken: first step whose loss or gradient was not finite, or -1
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.broken = torch.full((), -1, dtype=torch.int64, device=device)
        self._start()

    def _start(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.steps = 0
        self.samples = 0
        self.masks = torch.zeros((), dtype=torch.int64, device=self.device)

    def add(self, values: Mapping[str, Tensor | float], batch: Batch) -> None:
        """Adds what one step gave on this rank, without waiting for the device."""
        for name, value in values.items():
            if name == "masks":
                self.masks = self.masks + value
            elif torch.is_tensor(value):
                self.sums[name] = self.sums.get(name, 0) + value.detach().to(torch.float64)
        # A gradient that is not finite has broken the weights, whatever the loss of its own step was.
        signs = (values["loss"], values.get("grad_norm", 0.0))
        good = torch.isfinite(torch.as_tensor(sum(torch.as_tensor(sign).detach() for sign in signs)))
        self.broken = torch.where(
            (self.broken < 0) & ~good, torch.full_like(self.broken, batch.step), self.broken
        )
        self.samples = add_signatures(self.samples, batch.signature)
        self.steps += 1

    def broken_at(self) -> int | None:
        """The first step since the start that broke, on any rank, or None. Waits for the device."""
        first = self.broken if int(self.broken) >= 0 else torch.full_like(self.broken, 1 << 62)
        if grouped():
            first = first.clone()
            torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
        return int(first) if int(first) < 1 << 62 else None

    def take(self) -> tuple[dict[str, float], dict[str, str]]:
        """The means over the interval and all ranks, and the signatures in 16 hex digits; starts anew."""
        whole = self.tensors()
        sums = {
            name.removeprefix("sums."): value for name, value in whole.items() if name.startswith("sums.")
        }
        means = (torch.stack(list(sums.values())) / max(1, self.steps)).tolist() if sums else []
        signatures = {name: f"{int(whole[name]) & _MASK:016x}" for name in ("samples", "masks")}
        self._start()
        return dict(zip(sums, means)), signatures

    def tensors(self) -> dict[str, Tensor]:
        """The sums, their mean over all ranks, as a checkpoint holds them. A collective."""
        names = sorted(self.sums)
        sums = mean_across(torch.stack([self.sums[name] for name in names])).unbind() if names else ()
        # int64 and uint64 add up alike modulo 2**64
        signed = self.samples - (1 << 64) if self.samples >> 63 else self.samples
        signatures = sum_across(torch.stack([torch.tensor(signed, device=self.device), self.masks]))
        own = {"steps": torch.tensor(self.steps), "samples": signatures[0], "masks": signatures[1]}
        return {**own, **{f"sums.{name}": value for name, value in zip(names, sums)}}

    def restore(self, tensors: Mapping[str, Tensor], *, leads: bool = True) -> None:
        """Continues from a checkpoint: every rank takes the sums' mean, the first one the signatures."""
        self._start()
        self.steps = int(tensors["steps"])
        if leads:
            self.samples, self.masks = int(tensors["samples"]) & _MASK, tensors["masks"].to(self.device)
        for name, value in tensors.items():
            if name.startswith("sums."):
                self.sums[name.removeprefix("sums.")] = value.to(self.device)


def append(path: Path, line: Mapping[str, object]) -> None:
    """Appends one line in one write; what is not finite is null, as JSON has it."""
    clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}
    with path.open("a") as file:
        file.write(json.dumps(clean) + "\n")


def read(path: Path) -> Iterator[dict]:
    """The lines of metrics.jsonl; a torn last line, of a killed process, is left out."""
    if not path.exists():
        return
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def truncate(path: Path, step: int) -> int:
    """Removes the lines beyond `step`, which a resumed run will write again; returns how many."""
    if not path.exists():
        return 0
    before = path.read_text().count("\n")
    kept = [line for line in read(path) if line["step"] <= step]
    beside = path.with_name(f".{path.name}")
    with beside.open("w") as file:
        file.writelines(json.dumps(line) + "\n" for line in kept)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    return before - len(kept)
