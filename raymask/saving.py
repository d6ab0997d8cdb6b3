"""Writing checkpoints while training goes on: what is copied to the host is all that it waits for."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
import torch.distributed as dist

from raymask import checkpoint
from raymask.mirror import Mirror
from raymask.sharded import begin_saving
from raymask.state import Snapshot
from raymask.world import World, barrier, together


class CheckpointWriter:
    """Writes one checkpoint at a time into `folder`, and keeps the newest. Every rank has one.

    The first rank writes what all ranks hold alike, each rank its share of what is spread over them. Only
    when all of it is on the disk does the first one give the directory its name.
    """

    def __init__(
        self, folder: Path, *, world: World, device: torch.device, keep: int, mirror: Mirror | None = None
    ) -> None:
        self.folder = folder
        self.mirror = mirror
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
                begun = checkpoint.begin(self.folder, step)
                if self.mirror is not None:
                    self.mirror.clear(checkpoint.name_of(begun))
        beside, shares = checkpoint.writing(self.folder, step), None
        if snapshot.shared:
            shares = begin_saving(beside, snapshot.shared, group=self._own_group())
        host = snapshot.on_host() if self.world.leads else None
        if host is not None or shares is not None:
            self._under_way = self._thread.submit(self._complete, beside, host, shares)

    def finish(self) -> None:
        """Waits until the last checkpoint is complete. A collective; raises OSError if it could not be."""
        with together(device=self.device, otherwise="a checkpoint could not be written by another process"):
            self.close()

    def close(self) -> None:
        """Waits for what this process writes. Raises OSError if it could not be written."""
        under_way, self._under_way = self._under_way, None
        if under_way is not None:
            under_way.result()

    def _complete(self, beside: Path, whole: Snapshot | None, shares: Future | None) -> None:
        """This rank's part of a checkpoint; the first rank then gives it its name, once all are done."""
        problem = self._write_part(beside, whole, shares)
        if shares is not None and self.mirror is not None:
            failed = torch.tensor(int(problem is not None))
            dist.all_reduce(failed, group=self._group)  # nothing else uses this group meanwhile
            if failed and problem is None:
                problem = OSError("another process could not write or send its share of a checkpoint")

        def save(into: Path) -> None:
            if problem is not None:
                raise problem

        if whole is None:
            save(beside)
            return
        final = checkpoint.fill(beside, save=save, keep=self.keep)
        if self.mirror is not None:
            self.mirror.send_run(self.folder.parent)
            self.mirror.point(final.name, keep=self.keep)

    def _write_part(self, beside: Path, whole: Snapshot | None, shares: Future | None) -> Exception | None:
        """Writes what is this rank's to write, and sends it to the mirror; what went wrong, if anything."""
        try:
            if whole is not None:
                whole.write(beside)
            if shares is not None:
                shares.result()
            if self.mirror is not None:
                self.mirror.send_share(beside, checkpoint.name_of(beside), rank=self.world.rank)
        except Exception as error:  # the others wait to hear of it
            return error
        return None

    def _own_group(self) -> dist.ProcessGroup:
        """A group for the thread that writes shares: its collectives must not meet those of training."""
        if self._group is None:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup), "all ranks write"
            self._group = group
        barrier()
        return self._group
