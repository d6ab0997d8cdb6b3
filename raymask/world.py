"""Which process this is, and sums over all of them: the identity where there is only one.

Means over a global batch are weighted by images (`weight = images here / images in the whole batch`), so that
ranks may serve unequal shares: the sum over ranks of weighted local means is the mean of the whole batch.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

# A rank may wait that long while rank 0 evaluates alone, with a linear probe over a large bank for instance;
# the price is that a rank which hangs is noticed only after as long.
TIMEOUT = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """The rank of this process among `size`, and its rank on its own machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def leads(self) -> bool:
        """Whether this process writes files and talks to the user."""
        return self.rank == 0


def from_environment() -> World:
    """The world that torchrun describes in RANK, WORLD_SIZE and LOCAL_RANK; one process without them."""
    rank, size, local = (int(os.environ.get(name, default)) for name, default in _VARIABLES)
    if not 0 <= rank < size:
        raise ValueError(f"RANK={rank} is not below WORLD_SIZE={size}; start several processes with torchrun")
    return World(rank=rank, size=size, local_rank=local)


_VARIABLES = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))


@contextmanager
def joined(world: World, *, device: torch.device) -> Iterator[World]:
    """Within it, the processes of `world` form a group (NCCL on CUDA, gloo elsewhere).

    A group that a host such as Ray Train has formed already is used, and left as it is.
    """
    if world.size == 1 or dist.is_initialized():
        yield world
        return
    if device.type == "cuda":
        dist.init_process_group("nccl", timeout=TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", timeout=TIMEOUT)
    try:
        yield world
    finally:
        dist.destroy_process_group()


def grouped() -> bool:
    """Whether this process belongs to a group of more than one."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_across(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, the same bits on each; `tensor` itself without a group."""
    if not grouped():
        return tensor
    total = tensor.detach().clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total)
    return total


def mean_across(tensor: Tensor, *, weight: float | None = None) -> Tensor:
    """The mean of `tensor` over all processes, or the sum weighted by `weight` (weights add up to one)."""
    if not grouped():
        return tensor
    return sum_across(tensor * (1 / dist.get_world_size() if weight is None else weight))


def sum_all_across(tensors: Sequence[Tensor], *, bucket: int = 1 << 24) -> None:
    """Replaces each tensor by its sum over all processes, in flat buckets of about `bucket` values."""
    if not grouped():
        return
    for part in _buckets(tensors, bucket):
        flat = torch.cat([t.reshape(-1) for t in part])
        dist.all_reduce(flat)
        torch._foreach_copy_(
            list(part), [f.view_as(t) for f, t in zip(flat.split([t.numel() for t in part]), part)]
        )


def _buckets(tensors: Sequence[Tensor], bucket: int) -> Iterator[list[Tensor]]:
    """The tensors in order of dtype, cut into lists of at most about `bucket` values."""
    part: list[Tensor] = []
    for tensor in sorted(tensors, key=lambda t: str(t.dtype)):
        if part and (part[0].dtype != tensor.dtype or sum(t.numel() for t in part) + tensor.numel() > bucket):
            yield part
            part = []
        part.append(tensor)
    if part:
        yield part


def barrier() -> None:
    """Waits for all processes; nothing without a group."""
    if grouped():
        dist.barrier()


@contextmanager
def together(*, device: torch.device, otherwise: str) -> Iterator[None]:
    """What one process meets within it ends all of them: the others raise ValueError(`otherwise`).

    A collective at the end, which waits for all processes; one that raised alone would leave them waiting.
    """
    problem: ValueError | OSError | None = None
    try:
        yield
    except (ValueError, OSError) as error:
        problem = error
    if any_across(problem is not None, device=device):
        raise problem or ValueError(otherwise)


def any_across(flag: bool, *, device: torch.device) -> bool:
    """Whether `flag` is true on any process. A collective: all processes call it at the same step."""
    if not grouped():
        return flag
    return bool(sum_across(torch.tensor(int(flag), device=device)).item())
