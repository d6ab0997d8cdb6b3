"""Writing checkpoints while training goes on: what is copied to the host is all that it waits for."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from raymask import checkpoint
from raymask.sharded import begin_saving
from raymask.state import Snapshot
from raymask.world import World, barrier, together


class CheckpointWriter:
    """Writes one checkpoint at a time into `folder`, and keeps the newest. Every rank has one.

    The first rank writes what all ranks hold alike, each rank its share of what is spread over them. Only
    when all of it is on the disk does the first one give the directory its name.
    """

    def __init__(self, folder: Path, *, world: World, device: torch.device, keep: int) -> None:
        self.folder = folder
        self.world = world
        self.device = device
        self.keep = keep
        self._under_way: Future | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._group: dist.ProcessGroup | None = None

    def write(self, step: int, snapshot: Snapshot) -> None:
        """Copies the snapshot, and returns while it is being written. A collective.

        Raises OSError, on every rank, if the checkpoint before this one could not be written.
        """
        self.finish()
        with together(device=self.device, otherwise="the first process cannot write checkpoints"):
            if self.world.leads:
                checkpoint.begin(self.folder, step)
        beside, shares = checkpoint.writing(self.folder, step), None
        if snapshot.shared:
            shares = begin_saving(beside, snapshot.shared, group=self._own_group())
        if self.world.leads:
            self._under_way = self._thread.submit(self._complete, beside, snapshot.on_host(), shares)
        else:
            self._under_way = shares

    def finish(self) -> None:
        """Waits until the last checkpoint is complete. A collective; raises OSError if it could not be."""
        with together(device=self.device, otherwise="a checkpoint could not be written by another process"):
            self.close()

    def close(self) -> None:
        """Waits for what this process writes. Raises OSError if it could not be written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _complete(self, beside: Path, whole: Snapshot, shares: Future | None) -> None:
        """The first rank's share, then all the others', then the name."""

        def save(into: Path) -> None:
            whole.write(into)
            if shares is not None:
                shares.result()

        checkpoint.fill(beside, save=save, keep=self.keep)

    def _own_group(self) -> dist.ProcessGroup:
        """A group for the thread that writes shares: its collectives must not meet those of training."""
        if self._group is None:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup), "all ranks write"
            self._group = group
        barrier()
        return self._group
