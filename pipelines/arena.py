"""The memory that batches are written into: allocated once, handed out again when nobody holds it."""

import sys
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

Shape = tuple[int, ...]


def _holders(blocks: list[np.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


# What a block that nobody else holds counts: measured, because Python 3.14 counts fewer references than 3.11.
_OURS = _holders([np.empty(0)])[0]


@dataclass(frozen=True)
class Block:
    """The memory of one batch: arrays to write into and tensors over the same memory, by name."""

    arrays: dict[str, np.ndarray]
    tensors: dict[str, Tensor]


class Arena:
    """Blocks of memory for batches of at most these shapes.

    A batch stays valid for as long as its tensors, or any view of them, are held; only then is its memory
    used again. Pinned memory comes from torch's own pool, which also waits for copies still under way.
    """

    def __init__(self, shapes: dict[str, Shape], *, pin: bool = False, dtype: type = np.float32):
        self._shapes = shapes
        self._dtype = dtype
        self._pin = pin
        self._blocks: list[np.ndarray] = []

    def take(self) -> Block:
        """Memory that nobody else holds. Not for several threads at once."""
        if self._pin:
            kind = torch.from_numpy(np.empty(0, self._dtype)).dtype
            tensors = {
                name: torch.empty(shape, dtype=kind, pin_memory=True) for name, shape in self._shapes.items()
            }
            return Block({name: tensor.numpy() for name, tensor in tensors.items()}, tensors)
        return self._over(self._free_block())

    def _free_block(self) -> np.ndarray:
        for block, holders in zip(self._blocks, _holders(self._blocks)):
            if holders == _OURS:
                return block
        block = np.empty(sum(int(np.prod(shape)) for shape in self._shapes.values()), self._dtype)
        self._blocks.append(block)
        return block

    def _over(self, block: np.ndarray) -> Block:
        arrays, start = {}, 0
        for name, shape in self._shapes.items():
            stop = start + int(np.prod(shape))
            arrays[name] = block[start:stop].reshape(shape)
            start = stop
        return Block(arrays, {name: torch.from_numpy(array) for name, array in arrays.items()})
