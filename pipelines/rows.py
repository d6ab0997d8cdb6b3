"""What becomes of a decoded picture in each mode of augmentation: one row of a batch, in one native call.

All modes draw the same views from the same streams, so crops, order and signatures do not depend on the mode.
"""

import threading
from abc import ABC, abstractmethod
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pipelines.arena import Arena, Block, Shape
from pipelines.crops import MultiCrop
from pipelines.device_crops import LARGEST_SIDE, largest_of
from pipelines.draws import VIEW, rules
from pipelines.native import native
from pipelines.planes import Stored
from pipelines.raw import Raw, RawCrops, RawPictures, numbers_of
from pipelines.render import normalisation

# b: images of a batch   v: views of an image   n, m: sides of a view   k: pictures that are too large

Mode = Literal["cpu", "split", "device"]

_PICTURE = 400_000  # bytes for which there is room at first; more is taken where pictures are larger


class Rows(ABC):
    """The rows of one batch, written by any number of threads."""

    def __init__(self, rows: int, views: int):
        self.count = rows
        self.views = np.zeros((rows, views), VIEW)

    @abstractmethod
    def write(self, row: int, stored: Stored, key: np.uint64, sample: np.uint64) -> int:
        """Draws the views of a picture and fills its row; the signature of the sample and its views."""

    @abstractmethod
    def result(self) -> tuple[dict[str, Tensor], Raw | None]:
        """The crops by view group, or what is left to the device, once all rows are written."""


class RowMaker(ABC):
    """What all batches of a loader share: settings, and the memory that batches are written into."""

    def __init__(self, crops: MultiCrop):
        groups = (crops.global_crops, crops.local_crops)
        self.rules = np.concatenate([rules(group) for group in groups])
        self.affine = normalisation(crops)
        self.augmented = bool(self.rules["operations"].any())

    @abstractmethod
    def take(self, rows: int) -> Rows:
        """Empty rows of a batch. Not for several threads at once."""


def row_maker(mode: Mode, crops: MultiCrop, *, most: int, pin: bool) -> RowMaker:
    """For batches of at most `most` images. Raises ValueError where a mode cannot do what is asked."""
    if mode == "cpu":
        return _CpuMaker(crops, most=most, pin=pin)
    _refuse_randaugment(mode, crops)
    return (_SplitMaker if mode == "split" else _DeviceMaker)(crops, most=most, pin=pin)


def _refuse_randaugment(mode: Mode, crops: MultiCrop) -> None:
    if any(group.randaugment is not None for group in crops.groups.values()):
        raise ValueError(
            f"data.augment={mode} cannot do RandAugment, whose operations need whole images one by one: "
            "use data.augment=cpu or auto"
        )


def _shapes(crops: MultiCrop, most: int) -> dict[str, Shape]:
    return {name: (group.count, most, 3, group.height, group.width) for name, group in crops.groups.items()}


class _CpuMaker(RowMaker):
    """Everything in the row's native call: finished crops, float32."""

    def __init__(self, crops: MultiCrop, *, most: int, pin: bool):
        super().__init__(crops)
        self.arena = Arena(_shapes(crops, most), pin=pin)
        self.cut = native().cut_augmented if self.augmented else native().cut

    def take(self, rows: int) -> Rows:
        return _CpuRows(self, rows)


class _CpuRows(Rows):
    def __init__(self, maker: _CpuMaker, rows: int):
        super().__init__(rows, len(maker.rules))
        self._maker, self._block = maker, maker.arena.take()
        self._outs = _outs(self._block, np.float32)

    def write(self, row: int, stored: Stored, key: np.uint64, sample: np.uint64) -> int:
        maker, views = self._maker, self.views[row]
        numbers = (key, sample, maker.rules, maker.affine)
        return maker.cut(stored.data, stored.frame, *numbers, row, views, *self._outs)

    def result(self) -> tuple[dict[str, Tensor], Raw | None]:
        return {name: crop[:, : self.count] for name, crop in self._block.tensors.items()}, None


class _SplitMaker(RowMaker):
    """Crops, resized and flipped, as whole levels; colours are left to the device."""

    def __init__(self, crops: MultiCrop, *, most: int, pin: bool):
        super().__init__(crops)
        self.arena = Arena(_shapes(crops, most), pin=pin, dtype=np.uint8)

    def take(self, rows: int) -> Rows:
        return _SplitRows(self, rows)


class _SplitRows(Rows):
    def __init__(self, maker: _SplitMaker, rows: int):
        super().__init__(rows, len(maker.rules))
        self._rules, self._block = maker.rules, maker.arena.take()
        self._outs = _outs(self._block, np.uint8)

    def write(self, row: int, stored: Stored, key: np.uint64, sample: np.uint64) -> int:
        numbers = (key, sample, self._rules)
        return native().split(stored.data, stored.frame, *numbers, row, self.views[row], *self._outs)

    def result(self) -> tuple[dict[str, Tensor], Raw | None]:
        levels = {name: crop[:, : self.count] for name, crop in self._block.tensors.items()}
        return {}, RawCrops(levels, torch.from_numpy(numbers_of(self.views)))


def _outs(block: Block, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Where the two groups go; a group without views has no memory."""
    none: np.ndarray = np.empty((0, 1, 3, 1, 1), dtype)
    return block.arrays["global"], block.arrays.get("local", none)


class _DeviceMaker(RowMaker):
    """Whole pictures, end to end; all else is left to the device. Large ones are cut as `split` does."""

    def __init__(self, crops: MultiCrop, *, most: int, pin: bool):
        super().__init__(crops)
        self.pin, self._lock = pin, threading.Lock()
        self._size = _PICTURE * most
        self._arena = self._arena_of(self._size)
        self.shapes = _shapes(crops, 1)

    def _arena_of(self, size: int) -> Arena:
        return Arena({"pixels": (size,)}, pin=self.pin, dtype=np.uint8)

    def block(self, size: int = 0) -> Block:
        """Memory of at least `size` bytes, for whichever thread: batches begin in one and end in another.

        Where this asks for more than ever, all to come get as much, and a quarter to spare.
        """
        with self._lock:
            if size > self._size:
                self._size = size + size // 4
                self._arena = self._arena_of(self._size)
            return self._arena.take()

    def take(self, rows: int) -> Rows:
        return _DeviceRows(self, rows)


class _DeviceRows(Rows):
    """Each picture takes the next free stretch; where the memory ends, it waits in memory of its own."""

    def __init__(self, maker: _DeviceMaker, rows: int):
        super().__init__(rows, len(maker.rules))
        self._maker, self._block = maker, maker.block()
        self._starts, self._sides = np.zeros(rows, np.int64), np.zeros((rows, 2), np.int64)
        self._used, self._lock = 0, threading.Lock()
        self._waiting: dict[int, np.ndarray] = {}
        self._large: dict[int, Block] = {}

    def write(self, row: int, stored: Stored, key: np.uint64, sample: np.uint64) -> int:
        height, width = self._sides[row] = stored.height, stored.width
        numbers = (stored.data, stored.frame, key, sample, self._maker.rules)
        if max(height, width) > LARGEST_SIDE:
            self._room_for(row, 3)[:] = 0  # one of each plane: what the device makes of this row is not used
            block = self._large[row] = Arena(self._maker.shapes, dtype=np.uint8).take()
            return native().split(*numbers, 0, self.views[row], *_outs(block, np.uint8))
        size = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
        return native().place(*numbers, self.views[row], self._room_for(row, size))

    def _room_for(self, row: int, size: int) -> np.ndarray:
        """Bytes for the picture of a row."""
        with self._lock:
            start, self._used = self._used, self._used + size
        self._starts[row] = start
        room = self._block.arrays["pixels"]
        if start + size <= len(room):
            return room[start : start + size]
        self._waiting[row] = np.empty(size, np.uint8)
        return self._waiting[row]

    def result(self) -> tuple[dict[str, Tensor], Raw | None]:
        if self._waiting:
            self._make_room()
        raw = RawPictures(
            pixels=self._block.tensors["pixels"][: self._used],
            starts=torch.from_numpy(self._starts),
            sides=torch.from_numpy(self._sides),
            largest=largest_of(self._sides),
            views=torch.from_numpy(numbers_of(self.views)),
            large=torch.tensor(sorted(self._large), dtype=torch.int64),
            levels=self._levels(),
        )
        return {}, raw

    def _levels(self) -> dict[str, Tensor]:
        """The crops of the large pictures, uint8 [v, k, 3, n, m], by view group."""
        blocks = [block.tensors for _, block in sorted(self._large.items())]
        names = self._maker.shapes if blocks else ()
        each = {name: torch.cat([block[name] for block in blocks], dim=1) for name in names}
        return {name: levels.pin_memory() if self._maker.pin else levels for name, levels in each.items()}

    def _make_room(self) -> None:
        """Moves into memory that has room for all pictures of the batch."""
        held = self._block
        self._block = self._maker.block(self._used)
        room = self._block.arrays["pixels"]
        room[: len(held.arrays["pixels"])] = held.arrays["pixels"]
        for row, pixels in self._waiting.items():
            room[self._starts[row] : self._starts[row] + len(pixels)] = pixels
        self._waiting = {}
