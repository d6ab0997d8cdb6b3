"""What goes over the wire: the rows of a batch that one actor made, and their way into one batch.

A part is plain numpy, so that its arrays go to the object store as they lie and are read there in place. The
one copy out of it puts the rows of all actors in order, into memory that is pinned where a GPU wants it so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pipelines.arena import Arena, Block, Shape
from pipelines.batch import Batch, add_signatures
from pipelines.crops import MultiCrop
from pipelines.decode import Cause
from pipelines.device_crops import largest_of
from pipelines.raw import Raw, RawCrops, RawPictures

# v: views of a group   b: images of a part or a batch   n, m: sides of a view   f: numbers of a view

_NAMES = ("labels", "samples", "epochs", "positions")
_ROOM = 1.25  # of the bytes of pictures that are needed now: later batches may need more


@dataclass(frozen=True)
class Bad:
    """A bad sample that an actor met, and what it used instead (None: it found nothing)."""

    sample: int
    cause: Cause
    replaced_by: int | None


@dataclass(frozen=True)
class Part:
    """Rows of the global batch `step`, or the error that ended them.

    views: by view group, float32 or uint8 [v, b, 3, n, m]; or {"pictures": uint8 [bytes]}, and then by view
        group the crops of those rows that were too large to leave whole
    rows: what there is of each image, by name, [b, ...]; "large": which rows these are
    bad: the bad samples that nobody was told of yet; seconds: what its threads spent since the last part
    """

    step: int
    views: dict[str, np.ndarray] = field(default_factory=dict)
    rows: dict[str, np.ndarray] = field(default_factory=dict)
    global_rows: int = 0
    signature: int = 0
    bad: Sequence[Bad] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    error: Exception | None = None

    @property
    def bytes(self) -> int:
        """Of its arrays, which is what crosses the wire but for a few hundred bytes."""
        return sum(array.nbytes for array in (*self.views.values(), *self.rows.values()))


def part_of(batch: Batch, *, bad: Sequence[Bad], seconds: dict[str, float]) -> Part:
    """The batch of an actor as a part."""
    rows: dict[str, Tensor] = {name: getattr(batch, name) for name in _NAMES}
    views = batch.crops
    if batch.raw is not None:
        rows["views"] = batch.raw.views
    if isinstance(batch.raw, RawCrops):
        views = batch.raw.levels
    elif isinstance(batch.raw, RawPictures):
        views = {"pictures": batch.raw.pixels, **batch.raw.levels}
        rows |= {"starts": batch.raw.starts, "sides": batch.raw.sides, "large": batch.raw.large}
    return Part(
        step=batch.step,
        views={name: tensor.numpy() for name, tensor in views.items()},
        rows={name: tensor.numpy() for name, tensor in rows.items()},
        global_rows=batch.rows,
        signature=batch.signature,
        bad=bad,
        seconds=seconds,
    )


class Joiner:
    """Makes one batch of the parts of its actors. most: images of a batch; pin: into page-locked memory"""

    def __init__(self, crops: MultiCrop, *, most: int, pin: bool):
        self._shapes: dict[str, Shape] = {
            name: (group.count, most, 3, group.height, group.width) for name, group in crops.groups.items()
        }
        self._pin = pin
        self._arena: Arena | None = None
        self._room = 0  # bytes of pictures that `_arena` has

    def join(self, parts: Sequence[Part]) -> Batch:
        """The batch with the rows in the order of their positions. Not for several threads at once."""
        order = np.argsort(np.concatenate([part.rows["positions"] for part in parts]))
        where = np.split(np.argsort(order), np.cumsum([len(part.rows["positions"]) for part in parts])[:-1])
        rows = {
            name: torch.from_numpy(np.concatenate([part.rows[name] for part in parts])[order])
            for name in (*_NAMES, *(("views",) if "views" in parts[0].rows else ()))
        }
        crops, raw = self._pixels(parts, where, order, views=rows.pop("views", None))
        return Batch(
            crops=crops,
            raw=raw,
            **rows,
            step=parts[0].step,
            rows=parts[0].global_rows,
            signature=add_signatures(*(part.signature for part in parts)),
        )

    def _pixels(
        self, parts: Sequence[Part], where: list[np.ndarray], order: np.ndarray, *, views: Tensor | None
    ) -> tuple[dict[str, Tensor], Raw | None]:
        if "pictures" in parts[0].views:
            assert views is not None
            return {}, self._pictures(parts, where, order, views)
        crops = self._crops(parts, where, count=len(order))
        return (crops, None) if views is None else ({}, RawCrops(crops, views))

    def _crops(self, parts: Sequence[Part], where: list[np.ndarray], *, count: int) -> dict[str, Tensor]:
        """Rows of crops, copied to their places."""
        if self._arena is None:
            dtype = next(iter(parts[0].views.values())).dtype.type
            self._arena = Arena(self._shapes, pin=self._pin, dtype=dtype)
        block = self._arena.take()
        for part, places in zip(parts, where):
            for name, levels in part.views.items():
                block.arrays[name][:, _stretch(places)] = levels
        return {name: tensor[:, :count] for name, tensor in block.tensors.items()}

    def _pictures(
        self, parts: Sequence[Part], where: list[np.ndarray], order: np.ndarray, views: Tensor
    ) -> RawPictures:
        """Whole pictures, end to end, part after part; only where each begins is put in order."""
        begins = np.cumsum([0, *(len(part.views["pictures"]) for part in parts)])
        block = self._room_for(int(begins[-1]))
        for part, begin, end in zip(parts, begins[:-1], begins[1:]):
            block.arrays["pictures"][begin:end] = part.views["pictures"]
        starts = np.concatenate([part.rows["starts"] + begin for part, begin in zip(parts, begins)])[order]
        sides = np.concatenate([part.rows["sides"] for part in parts])[order]
        large = np.concatenate([places[part.rows["large"]] for part, places in zip(parts, where)])
        return RawPictures(
            pixels=block.tensors["pictures"][: begins[-1]],
            starts=torch.from_numpy(starts),
            sides=torch.from_numpy(sides),
            largest=largest_of(sides),
            views=views,
            large=torch.from_numpy(np.sort(large)),
            levels=self._levels(parts, np.argsort(large)),
        )

    def _levels(self, parts: Sequence[Part], order: np.ndarray) -> dict[str, Tensor]:
        """The crops of pictures that were too large to leave whole, by view group."""
        found = [part.views for part in parts if len(part.rows["large"])]
        joined = {
            name: torch.from_numpy(np.concatenate([views[name] for views in found], axis=1)[:, order])
            for name in (self._shapes if found else ())
        }
        return {name: levels.pin_memory() if self._pin else levels for name, levels in joined.items()}

    def _room_for(self, size: int) -> Block:
        if self._arena is None or size > self._room:
            self._room = int(_ROOM * size)
            self._arena = Arena({"pictures": (self._room,)}, pin=self._pin, dtype=np.uint8)
        return self._arena.take()


def _stretch(places: np.ndarray) -> slice | np.ndarray:
    """Evenly spaced places as a slice, which copies faster."""
    steps = np.diff(places)
    if len(places) and (steps == steps[:1]).all():
        step = int(steps[0]) if len(steps) else 1
        return slice(int(places[0]), int(places[-1]) + 1, step)
    return places
