"""Tensors that are spread over ranks, and checkpoints of which every rank writes its own share.

The shares are safetensors files in `shards/`, written through torch.distributed.checkpoint, so that nothing
has to be unpickled; they come back on any number of ranks, whole or shared out anew, without collectives.
"""

import warnings
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor

FOLDER = "shards"


def is_shared(tensor: Tensor) -> bool:
    """Whether a tensor is spread over ranks: a DTensor, whose class takes a second to import."""
    return hasattr(tensor, "to_local")


def local(tensor: Tensor) -> Tensor:
    """This rank's share of a tensor; the tensor itself where it is whole."""
    return _shared(tensor).to_local() if is_shared(tensor) else tensor


def full(tensor: Tensor) -> Tensor:
    """All of a tensor, gathered from the ranks; the tensor itself where it is whole. A collective."""
    return _shared(tensor).full_tensor() if is_shared(tensor) else tensor


def _shared(tensor: Tensor) -> Any:
    return tensor


def norms(tensors: Sequence[Tensor]) -> Float[Tensor, " tensors"]:
    """The L2 norm of each tensor, all of its shares counted. A collective where any is shared."""
    mine = torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors]))
    shared = [is_shared(tensor) for tensor in tensors]
    if not any(shared):
        return mine
    squares = mine.square()
    torch.distributed.all_reduce(squares)
    return torch.where(torch.tensor(shared, device=mine.device), squares.sqrt(), mine)


def begin_saving(
    folder: Path, parts: Mapping[str, Mapping[str, Tensor]], *, group: torch.distributed.ProcessGroup
) -> Future:
    """Copies every rank's share to the host and starts to write it into `folder`; done when all ranks are.

    A collective over `group`, a gloo group that nothing else uses meanwhile.
    """
    import torch.distributed.checkpoint as dcp

    tensors = {f"{part}/{name}": tensor for part, named in parts.items() for name, tensor in named.items()}
    writer = dcp.HuggingFaceStorageWriter(str(folder / FOLDER), save_distributed=True)
    return dcp.async_save(tensors, storage_writer=writer, process_group=group)  # type: ignore[return-value]


def written_by(path: Path, rank: int) -> bool:
    """Whether this rank wrote a file of a checkpoint; what is in no shard is the first one's."""
    return path.name.startswith(f"shard-{rank + 1:05d}-") if path.parent.name == FOLDER else rank == 0


def described(folder: Path, part: str) -> dict[str, Tensor]:
    """Names, shapes and types of the tensors that are spread over files, without content.

    Raises ValueError where the files are damaged.
    """
    import torch.distributed.checkpoint as dcp

    where = folder / FOLDER
    try:
        found = dcp.HuggingFaceStorageReader(str(where)).read_metadata().state_dict_metadata
    except (OSError, SafetensorError) as error:
        raise _damaged(where, error) from error
    own: dict[str, Any] = {name: about for name, about in found.items() if name.startswith(f"{part}/")}
    return {
        name.removeprefix(f"{part}/"): torch.empty(about.size, dtype=about.properties.dtype, device="meta")
        for name, about in own.items()
    }


def fill(folder: Path, part: str, targets: Mapping[str, Tensor]) -> None:
    """Reads a part of a checkpoint into `targets`, in place: each rank what it holds of them.

    Raises ValueError where the files are damaged.
    """
    import torch.distributed.checkpoint as dcp

    prefix, where = (f"{part}/", folder / FOLDER) if holds_shards(folder) else ("", folder)
    named = {f"{prefix}{name}": tensor.detach() for name, tensor in targets.items()}
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")  # as it is meant to be
            dcp.load(named, storage_reader=dcp.HuggingFaceStorageReader(str(where)), no_dist=True)
    except (OSError, SafetensorError, dcp.CheckpointException) as error:
        raise _damaged(where, error) from error


def holds_shards(folder: Path) -> bool:
    """Whether a checkpoint was written by several ranks, each its share."""
    return (folder / FOLDER).is_dir()


def _damaged(path: Path, error: BaseException) -> ValueError:
    return ValueError(f"{path} cannot be read ({error}): the checkpoint is damaged")
