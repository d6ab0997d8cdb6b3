"""Who hosts a run: a plain process, a worker of Ray Train or a trial of Ray Tune, behind one interface.

The loop asks its host for the checkpoint to continue from, reports to it at step boundaries, and asks whether
anything is wanted of it. It never knows which host that is.
"""

import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import torch

from raymask import checkpoint
from raymask.disks import ALONE, Disk
from raymask.mirror import Mirror
from raymask.saving import CheckpointWriter
from raymask.signals import StopRequest, asked_to_stop
from raymask.state import Snapshot
from raymask.world import World, any_across, together

Ask = Literal["stop", "save"]


@runtime_checkable
class RunContext(Protocol):
    """What the loop needs of its host. All are collectives: ranks call them together."""

    world: World

    @property
    def rank(self) -> int:
        """Number of this process in the run."""

    def latest(self) -> AbstractContextManager[Path | None]:
        """The directory of the checkpoint to continue from, readable in the `with`; None starts afresh."""

    def report(self, metrics: Mapping[str, float], *, step: int, save: Snapshot | None = None) -> None:
        """Tells the host what was measured after `step` steps, and has `save` written as a checkpoint.

        Training goes on while it is written.
        """

    def asked(self) -> Ask | None:
        """What the host asks of the run: to stop after a checkpoint, or to save one at once and go on."""

    def finish(self) -> None:
        """Waits until every checkpoint is complete."""


class LocalContext:
    """A plain process, or several started by torchrun; checkpoints lie in the run directory."""

    def __init__(
        self,
        run: Path,
        *,
        world: World,
        device: torch.device,
        keep: int,
        stop: StopRequest | None = None,
        disk: Disk = ALONE,
        mirror: Mirror | None = None,
    ) -> None:
        self.run = run
        self.folder = run / "checkpoints"
        self.world = world
        self.device = device
        self.stop = stop
        self.disk = disk
        self.mirror = mirror
        self.writer = CheckpointWriter(
            self.folder, world=world, device=device, keep=keep, disk=disk, mirror=mirror
        )

    @property
    def rank(self) -> int:
        """Number of this process in the run."""
        return self.world.rank

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The checkpoint that `last` names; that of the mirror, where the run has one.

        Raises ValueError, on all ranks, where a disk holds one that the mirror does not know.
        """
        if self.mirror is not None:
            with together(device=self.device, otherwise="another machine cannot reach run.mirror"):
                if self.disk.keeps and self._brought(self.mirror) is None:
                    _refuse_unknown(self.folder)
        yield checkpoint.latest(self.folder)

    def _brought(self, mirror: Mirror) -> Path | None:
        return mirror.bring_latest(self.run, keep=self.writer.keep if self.world.leads else 1)

    def report(self, metrics: Mapping[str, float], *, step: int, save: Snapshot | None = None) -> None:
        """Has the checkpoint written; the metrics are in metrics.jsonl already."""
        if save is not None:
            self.writer.write(step, save)

    def asked(self) -> Ask | None:
        """To stop, if any rank was sent SIGTERM or SIGINT, or the run directory says so."""
        signalled = self.stop is not None and self.stop.received is not None
        stops = signalled or (self.world.leads and asked_to_stop(self.run))
        return "stop" if any_across(stops, device=self.device) else None

    def finish(self) -> None:
        """Waits until every checkpoint is complete."""
        self.writer.finish()

    def keep_last(self) -> None:
        """Has the last checkpoint on the first rank's disk, whole, where it lies in the mirror only."""
        if self.mirror is not None and self.world.leads:
            self._brought(self.mirror)


def _refuse_unknown(folder: Path) -> None:
    """Raises ValueError where checkpoints are on this disk, though the mirror has none."""
    found = checkpoint.latest(folder)
    if found is not None:
        raise ValueError(
            f"{socket.gethostname()} holds {found}, of which run.mirror knows nothing: begin there, so that "
            "it is sent, or remove that run directory"
        )


Host = Callable[[LocalContext], RunContext]  # what makes a host of this process


def itself(local: LocalContext) -> RunContext:
    """The plain process as its own host."""
    return local
