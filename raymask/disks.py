"""Which ranks see one disk: each leaves a marker where runs are written, and looks for those of others."""

import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from raymask.world import World, sum_across, together

_PATIENCE = 5.0  # seconds in which a network's disk has to show what another machine has just written


@dataclass(frozen=True)
class Disk:
    """The folder of runs, as this rank sees it.

    keeps: whether this is the first of the ranks that write there, which tidies up for them
    common: whether all ranks of the run write there
    """

    keeps: bool
    common: bool


ALONE = Disk(keeps=True, common=True)  # a process that shares with nobody


def find_disk(root: Path, *, world: World, device: torch.device, mirrored: bool) -> Disk:
    """Who else writes into `root`. A collective.

    mirrored: whether machines may have a disk each. Raises ValueError, on every rank, where they may not and
    one does not see what the first one wrote.
    """
    if world.size == 1:
        return ALONE
    mark = _marks(root, world, device)
    with together(device=device, otherwise=f"the first process cannot write to run.root={root}"):
        if world.leads or (mirrored and world.local_rank == 0):
            _touch(mark(world.rank))
    first = _first_seen(mark, world, patience=0.0 if mirrored else _PATIENCE)
    seen = torch.zeros(world.size, dtype=torch.int64, device=device)
    seen[world.rank] = first
    firsts = sum_across(seen).tolist()  # all have looked once it is there
    with suppress(OSError):
        mark(world.rank).unlink()
    if any(firsts) and not mirrored:
        raise ValueError(_blind(root, [rank for rank, first in enumerate(firsts) if first]))
    return Disk(keeps=first == world.rank, common=not any(firsts))


def _marks(root: Path, world: World, device: torch.device) -> Callable[[int], Path]:
    """Where each rank leaves its marker. The names are new, so that no cache can know them."""
    chosen = torch.tensor(secrets.randbits(48) if world.leads else 0, device=device)
    name = f".seen-{int(sum_across(chosen)):012x}"
    return lambda rank: root / f"{name}-{rank}"


def _touch(marker: Path) -> None:
    try:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    except OSError as error:
        raise ValueError(
            f"run.root={marker.parent} cannot be written to ({error.strerror}): set run.root=DIR"
        ) from error


def _first_seen(mark: Callable[[int], Path], world: World, *, patience: float) -> int:
    """The lowest rank whose marker is there; this one's own number where it sees none."""
    until = time.monotonic() + patience
    while True:
        with suppress(OSError), os.scandir(mark(0).parent):
            pass  # opening a folder makes NFS ask for what is new in it
        for rank in range(world.rank + 1):
            if os.path.exists(mark(rank)):  # noqa: PTH110 (a disk that errs has not got it: all go on to ask)
                return rank
        if time.monotonic() >= until:
            return world.rank
        time.sleep(0.2)


def _blind(root: Path, blind: list[int]) -> str:
    """What is wrong, with the names of machines. A collective."""
    hosts: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(hosts, socket.gethostname())
    more = f" (and {len(blind) - 1} more)" if len(blind) > 1 else ""
    return (
        f"worker {blind[0]} on {hosts[blind[0]]}{more} does not see run.root={root} as worker 0 on "
        f"{hosts[0]} does: set run.root (for a search, root) to a folder that all machines share (NFS), or "
        "run.mirror to a bucket such as s3://bucket/runs"
    )
