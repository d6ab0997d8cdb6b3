"""How the ranks of a run share a method: each holding all of it (DDP), or a share of its weights (FSDP2)."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Literal, TypeGuard, TypeVar

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from raymask.layer import Layer
from raymask.methods.method import Method
from raymask.sharded import full, is_shared
from raymask.world import World

if TYPE_CHECKING:
    from torch.distributed.fsdp import FSDPModule

Parallel = Method | DistributedDataParallel
Sharing = Literal["ddp", "fsdp2"]
Part = TypeVar("Part", bound=nn.Module)


def parallelise(method: Method, *, world: World, device: torch.device, sharing: Sharing) -> Parallel:
    """The method as the ranks call it: gradients are averaged over all of them.

    fsdp2 replaces parameters by DTensors, so the optimiser is built after it: every transformer block of
    student and teacher is gathered for as long as it computes, the rest for the length of a step.
    """
    if world.size == 1:
        return method
    if sharing == "ddp":
        with warnings.catch_warnings():
            # Its successor, forward_sync_buffers, is unknown to some versions that raymask runs on.
            warnings.filterwarnings("ignore", message="`broadcast_buffers` is deprecated")
            return DistributedDataParallel(method, broadcast_buffers=False)
    from torch.distributed.device_mesh import init_device_mesh  # FSDP takes a second to import
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    mesh = init_device_mesh(device.type, (world.size,))
    for block in [each for each in method.modules() if isinstance(each, Layer)]:
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "run")
    fully_shard(method, mesh=mesh)
    return method


def bare(method: Parallel) -> Method:
    """The method itself, without the wrapper that exchanges gradients."""
    return method.module if isinstance(method, DistributedDataParallel) else method


def ranks(method: Parallel) -> int:
    """How many processes average their gradients."""
    if isinstance(method, DistributedDataParallel):
        return torch.distributed.get_world_size(method.process_group)
    return torch.distributed.get_world_size() if _is_shared(method) else 1


def exchanging(method: Parallel, *, last: bool) -> AbstractContextManager:
    """Within it, gradients stay on their rank unless these are the `last` ones of a step."""
    if _is_shared(method):
        method.set_requires_gradient_sync(last)
        return nullcontext()
    return method.no_sync() if isinstance(method, DistributedDataParallel) and not last else nullcontext()


def _is_shared(method: Parallel) -> "TypeGuard[FSDPModule]":
    return hasattr(method, "set_requires_gradient_sync")


def gathered(part: Part, build: Callable[[], Part]) -> Part:
    """A part of a method that one rank alone can call, outside of a step: itself, where it is not shared.

    Otherwise a copy, for which `build` makes the network. A collective.
    """
    weights = part.state_dict()
    if not any(is_shared(tensor) for tensor in weights.values()):
        return part
    copy, device = build(), next(part.parameters()).device
    copy.load_state_dict({name: full(tensor) for name, tensor in weights.items()})
    return copy.to(device)
