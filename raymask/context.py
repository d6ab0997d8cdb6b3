"""Who hosts a run: a plain process here; Ray Train and Ray Tune later, behind the same five methods.

The loop asks its host for the checkpoint to continue from, reports to it at step boundaries, and asks whether
it should stop. It never knows which host that is.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch

from raymask import checkpoint
from raymask.signals import StopRequest
from raymask.world import World, any_across, barrier

Save = Callable[[Path], None]


@runtime_checkable
class RunContext(Protocol):
    """What the loop needs of its host."""

    world: World

    @property
    def rank(self) -> int:
        """Number of this process in the run."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """The directory of the checkpoint to continue from, readable in the `with`; None starts afresh."""

    def report(self, metrics: Mapping[str, float], *, step: int, save: Save | None = None) -> None:
        """Tells the host the state after `step` steps; `save` fills a directory with a checkpoint.

        A collective: every rank calls it at the same steps, and only the first one's `save` is called.
        """

    def preempted(self) -> bool:
        """Whether the run should write a checkpoint and end. A collective where there are several ranks."""


class LocalContext:
    """A plain process, or several started by torchrun; checkpoints lie in the run directory."""

    def __init__(
        self, run: Path, *, world: World, device: torch.device, keep: int, stop: StopRequest | None = None
    ) -> None:
        self.folder = run / "checkpoints"
        self.world = world
        self.device = device
        self.keep = keep
        self.stop = stop

    @property
    def rank(self) -> int:
        """Number of this process in the run."""
        return self.world.rank

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The checkpoint that `last` names."""
        yield checkpoint.latest(self.folder)

    def report(self, metrics: Mapping[str, float], *, step: int, save: Save | None = None) -> None:
        """Writes the checkpoint; the metrics are in metrics.jsonl already."""
        if save is not None:
            if self.world.leads:
                checkpoint.write(self.folder, step, save=save, keep=self.keep)
            barrier()

    def preempted(self) -> bool:
        """Whether any rank was sent SIGTERM or SIGINT."""
        return any_across(self.stop is not None and self.stop.received is not None, device=self.device)
