"""Shards, ours or anyone's: WebDataset tars and FFCV betons, read at random through the index beside each.

The files are plain ones that any tool reads; neither `webdataset` nor `ffcv` is needed to do so.
"""

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pipelines.decode import BadSample
from pipelines.formats.held import Checked, OpenShard, mark
from pipelines.index import (
    FAULTS,
    HASHED,
    ShardError,
    ShardIndex,
    descriptor,
    opened,
)
from pipelines.manifest import NAME, Shard, fingerprint, read_manifest
from pipelines.notes import NOTHING, Notes
from pipelines.regular import MAX_BYTES, read_at
from pipelines.stored import check_index, stored_index

OPEN_SHARDS = 256  # files and indexes that are held at once, unless a reader says what it needs


class ShardSource:
    """Images in shards, which open when they are first read; as many stay open as `keep` says.

    classes: their names; the labels of a shard that names its own are numbered by them
    kept: indexes of shards beside which none could be stored
    notes: what was passed over as the shards were scanned
    """

    def __init__(
        self,
        paths: Sequence[Path | str],
        shards: tuple[Shard, ...],
        classes: list[str],
        kept: dict[Path, ShardIndex],
        *,
        notes: Notes = NOTHING,
    ) -> None:
        self.notes = notes
        self.paths, self.shards, self._kept = paths, shards, kept
        self.shard_sizes = np.array([shard.images for shard in shards], dtype=np.int64)
        self._starts = [0, *np.cumsum(self.shard_sizes).tolist()]
        self.fingerprint = fingerprint(shards)
        self.stored_bytes = sum(shard.bytes for shard in shards)
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._files, self._checked = OPEN_SHARDS, Checked(OPEN_SHARDS)
        self._lock = threading.Lock()
        self.classes = classes
        self._numbers = {name: number for number, name in enumerate(classes)}

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The labels of all images; reads every index once."""
        parts = [self._index(number).labels for number in range(len(self.paths))]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def read(self, sample: int) -> bytes:
        """The encoded image, by one `pread`. Raises ShardError where the shard is gone, cut or replaced.

        Raises BadSample for one that must not be used, OSError for a fault of the machine.
        Bare pixels, which FFCV can store, come as a PPM file:
        a line of text before them.
        """
        number, place = self._place(sample)
        shard = self._shard(number)
        size, offset = int(shard.index.sizes[place]), int(shard.index.offsets[place])
        if offset < 0:
            raise BadSample(FAULTS[-1 - offset])
        if size > MAX_BYTES:
            raise BadSample("too many bytes")
        try:
            data = read_at(shard.file, size, offset)
        except OSError as error:
            with self._lock:  # what is stale stays so: the next attempt opens the file again
                self._open.pop(number, None)
            raise OSError(error.errno, error.strerror, str(self.paths[number])) from None
        if len(data) != size:
            raise ShardError(f"shard {self.paths[number]} is truncated: it was cut off while it was in use")
        width = 0 if shard.index.widths is None else int(shard.index.widths[place])
        return b"P6 %d %d 255\n" % (width, size // (3 * width)) + data if width else data

    def label(self, sample: int) -> int:
        number, place = self._place(sample)
        return int(self._shard(number).index.labels[place])

    def key(self, sample: int) -> str:
        number, place = self._place(sample)
        return self._shard(number).index.key(place)

    def shard(self, sample: int) -> str:
        return str(self.paths[self._place(sample)[0]])

    def _place(self, sample: int) -> tuple[int, int]:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of a data set of {len(self):,}")
        number = bisect_right(self._starts, sample) - 1
        return number, sample - self._starts[number]

    def _index(self, number: int) -> ShardIndex:
        path, shard = self.paths[number], self.shards[number]
        index = self._stored(number)
        if (len(index), index.checksum) != (shard.images, shard.checksum):
            raise ShardError(f"shard {path} or its index was changed: {self._since(shard)}")
        if not index.names:
            return index
        numbers = np.array([self._numbers[name] for name in index.names], dtype=np.int64)
        return replace(index, labels=np.where(index.labels < 0, -1, numbers[index.labels]))

    @staticmethod
    def _since(shard: Shard) -> str:
        if shard.checksum.startswith(HASHED):
            return f"{NAME} describes another: pack the data again"
        return "it is not the one that the data set was opened with: start again"

    def keep(self, indexes: int, *, files: int) -> None:
        """From now on holds the indexes of so many shards, and so many open files of them, at most."""
        self._checked.most, self._files = indexes, files

    def _shard(self, number: int) -> OpenShard:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        return self._keep(number, self._opened(number))

    def _keep(self, number: int, shard: OpenShard) -> OpenShard:
        with self._lock:
            self._open[number] = shard
            while len(self._open) > self._files:
                self._open.popitem(last=False)
        return shard

    def _stored(self, number: int) -> ShardIndex:
        """The index of a shard, wherever it is kept."""
        hashed = self.shards[number].checksum.startswith(HASHED)
        return stored_index(Path(self.paths[number]), self._kept, hashed=hashed)

    def _opened(self, number: int) -> OpenShard:
        """Opens a shard and compares it with its index."""
        path, known = Path(self.paths[number]), self._checked.get(number)
        if known is not None:
            shard = OpenShard(descriptor(path), known[1])
            if mark(shard.file) == known[0]:
                return shard
        index = self._index(number)
        shard = OpenShard(descriptor(path), index)
        check_index(shard.index, path, shard.file)
        self._checked.add(number, shard)
        return shard


def open_shards(paths: list[Path]) -> ShardSource:
    """Any tars or betons as one data set. The first time, their headers are scanned, the indexes stored."""
    paths = sorted(dict.fromkeys(paths))
    if len({path.resolve() for path in paths}) < len(paths):
        raise ValueError("the list of shards names one file twice")
    kept: dict[Path, ShardIndex] = {}
    shards, classes, notes = [], Classes(), NOTHING
    for path in paths:
        index = stored_index(path, kept)
        with opened(path) as file:
            check_index(index, path, file)
        classes.add(index, path)
        notes += index.notes.of(path)
        shards.append(Shard(path.name, len(index), index.shard_bytes, index.checksum))
    if not sum(shard.images for shard in shards):
        raise ValueError(
            f"the {len(paths)} shards hold no images (.jpg, .png, .webp, ...), {paths[0]} first among them"
        )
    return ShardSource(paths, tuple(shards), classes.found(), kept, notes=notes)


class Classes:
    """The classes of shards that either number or name them, gathered shard by shard."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._highest = -1
        self._named_by = self._numbered_by = ""

    def add(self, index: ShardIndex, path: Path | str) -> None:
        """Takes note of a shard. Raises ValueError where one names its classes and another numbers them."""
        if index.names:
            self._names.update(index.names)
            self._named_by = str(path)
        elif (highest := int(index.labels.max(initial=-1))) >= 0:
            self._highest = max(self._highest, highest)
            self._numbered_by = str(path)
        if self._named_by and self._numbered_by:
            raise ValueError(
                f"{self._named_by} names its classes and {self._numbered_by} numbers them: open them apart"
            )

    def found(self) -> list[str]:
        """Their names in the order of their numbers."""
        return sorted(self._names) if self._names else [str(number) for number in range(self._highest + 1)]


def open_packed(folder: Path) -> ShardSource:
    """A data set that `pack` wrote. Every shard must be there and have its length."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.images:
        raise ValueError(f"{folder} holds no packed data set: there is no {NAME} with images in it")
    paths = [folder / shard.name for shard in manifest.shards]
    for path, shard in zip(paths, manifest.shards):
        check_length(path, shard)
    return ShardSource(paths, manifest.shards, list(manifest.classes), {})


def check_length(path: Path, shard: Shard) -> None:
    """Raises ShardError unless the packed shard is there and as long as the manifest says."""
    try:
        length = path.stat().st_size
    except OSError:
        raise ShardError(f"shard {path} is missing: {NAME} names it with {shard.images:,} images") from None
    if length != shard.bytes:
        state = "truncated" if length < shard.bytes else "not the one that was packed"
        raise ShardError(f"shard {path} is {state}: it has {length:,} bytes, {NAME} says {shard.bytes:,}")
