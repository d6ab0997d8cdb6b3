"""Golden cases: reading them, and the table of replays by kind."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

HERE = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Case:
    """One golden case: what its JSON says, and its tensors."""

    path: Path
    meta: dict
    tensors: dict[str, Tensor]

    @property
    def kind(self) -> str:
        return self.meta["kind"]

    def __getitem__(self, name: str) -> Tensor:
        return self.tensors[name]

    def under(self, prefix: str, dtype: torch.dtype | None = None) -> dict[str, Tensor]:
        """The tensors whose names start with `prefix`, without it."""
        found = {k[len(prefix) :]: v for k, v in self.tensors.items() if k.startswith(prefix)}
        return {k: v.to(dtype) if dtype and v.is_floating_point() else v for k, v in found.items()}


@dataclass(frozen=True)
class Deviation:
    """One compared quantity: its largest deviation and the tolerance it is held to."""

    what: str
    value: float
    tolerance: float

    @property
    def ok(self) -> bool:
        return self.value <= self.tolerance  # False for NaN


Replay = Callable[[Case], list[Deviation]]
REPLAYS: dict[str, Replay] = {}


def replays(kind: str) -> Callable[[Replay], Replay]:
    """Registers the function that replays the cases of `kind`."""

    def register(function: Replay) -> Replay:
        assert kind not in REPLAYS, kind
        REPLAYS[kind] = function
        return function

    return register


def load(path: Path) -> Case:
    """The case described by the JSON file at `path`."""
    meta = json.loads(path.read_text())
    tensors = path.with_suffix(".safetensors")
    return Case(path, meta, load_file(tensors) if tensors.exists() else {})


def find(folder: Path) -> Iterator[Path]:
    """The JSON files of the cases below `folder`, in order."""
    yield from sorted(p for p in Path(folder).rglob("*.json") if "kind" in json.loads(p.read_text()))


def largest(got: Tensor, expected: Tensor) -> float:
    """The largest absolute deviation; infinite where shapes differ."""
    if tuple(got.shape) != tuple(expected.shape):
        return float("inf")
    return float((got.detach().double() - expected.double()).abs().max()) if got.numel() else 0.0


def compare(what: str, got: Tensor, expected: Tensor, tolerance: float = 0.0) -> Deviation:
    """The largest absolute deviation of `got` from `expected`, to be held to `tolerance`."""
    return Deviation(what, largest(got, expected), tolerance)
