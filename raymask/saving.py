"""Writing checkpoints while training goes on: what is copied to the host is all that it waits for."""

import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist

from raymask import checkpoint
from raymask.disks import Disk
from raymask.mirror import Mirror
from raymask.sharded import begin_saving
from raymask.state import Snapshot
from raymask.world import World, barrier, together


class CheckpointWriter:
    """Writes one checkpoint at a time into `folder`, and keeps the newest. Every rank has one.

    The first rank writes what all ranks hold alike, each rank its share of what is spread over them. Only
    when all of it is on the disk does the first one give the directory its name; after that it goes to the
    mirror. Shares on disks of several machines are whole in the mirror only, and get no name here.
    """

    def __init__(
        self,
        folder: Path,
        *,
        world: World,
        device: torch.device,
        keep: int,
        disk: Disk,
        mirror: Mirror | None = None,
    ) -> None:
        assert disk.common or mirror is not None, "whoever found the disk refused it"
        self.folder = folder
        self.mirror = mirror
        self.world = world
        self.device = device
        self.disk = disk
        self.keep = keep
        self._under_way: Future | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._group: dist.ProcessGroup | None = None

    def write(self, step: int, snapshot: Snapshot) -> None:
        """Copies the snapshot, and returns while it is being written. A collective.

        Raises OSError, on every rank, if the checkpoint before this one could not be written.
        """
        self.finish()
        with together(device=self.device, otherwise="another process cannot write checkpoints"):
            if self.world.leads or (snapshot.shared and self.disk.keeps):
                checkpoint.begin(self.folder, step)
        beside, shares = checkpoint.writing(self.folder, step), None
        if snapshot.shared:
            shares = begin_saving(beside, snapshot.shared, group=self._own_group())
        host = snapshot.on_host() if self.world.leads else None
        if host is not None or shares is not None or not self.disk.common:
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
        """This rank's part of a checkpoint: to its disk, and from there to the mirror."""
        scattered = shares is not None and not self.disk.common
        name, write = checkpoint.name_of(beside), partial(_write, whole=whole, shares=shares)
        with self._agreed(shares):
            if whole is None or scattered:
                write(beside)
            else:
                checkpoint.fill(beside, save=write, keep=self.keep)
        if self.mirror is not None:
            self._send(self.mirror, beside if scattered else beside.with_name(name), name, shares)
        if scattered and self.disk.keeps:
            shutil.rmtree(beside)

    def _send(self, mirror: Mirror, here: Path, name: str, shares: Future | None) -> None:
        """This rank's part of the checkpoint `name`, which lies `here`; it counts once all were sent."""
        run = self.folder.parent
        with self._agreed(shares):
            if self.world.leads:
                mirror.refuse_displaced()
                mirror.remove(name)
        with self._agreed(shares):
            mirror.send_share(here, name, rank=self.world.rank)
            if self.world.leads or not self.disk.common:
                mirror.send_bad(run, range(self.world.size) if self.disk.common else [self.world.rank])
        if self.world.leads:
            mirror.send_run(run)
            mirror.complete(here, name, keep=self.keep)

    @contextmanager
    def _agreed(self, shares: Future | None) -> Iterator[None]:
        """What one of the ranks that write shares meets within it ends it for all of them. A collective."""
        problem: Exception | None = None
        try:
            yield
        except Exception as error:  # the others wait to hear of it
            problem = error
        if shares is not None:
            failed = torch.tensor(int(problem is not None))
            dist.all_reduce(failed, group=self._group)  # nothing else uses this group meanwhile
            if failed and problem is None:
                problem = OSError("another process could not write or send its share of a checkpoint")
        if problem is not None:
            raise problem

    def _own_group(self) -> dist.ProcessGroup:
        """A group for the thread that writes shares: its collectives must not meet those of training."""
        if self._group is None:
            group = dist.new_group(backend="gloo")
            assert isinstance(group, dist.ProcessGroup), "all ranks write"
            self._group = group
        barrier()
        return self._group


def _write(beside: Path, *, whole: Snapshot | None, shares: Future | None) -> None:
    """Writes what is a rank's to write; its shares are being written already, and are when all ranks' are."""
    if whole is not None:
        whole.write(beside)
    if shares is not None:
        shares.result()
