"""WebDataset tars, ours or anyone's: random access through the index beside each.

The tars are plain ones that any tool reads; the `webdataset` package itself is not needed to do so.
"""

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pipelines.index import (
    HASHED,
    ShardError,
    ShardIndex,
    check_index,
    index_bytes,
    index_path,
    opened,
    read_index,
    write_atomically,
)
from pipelines.manifest import NAME, Shard, fingerprint, read_manifest
from pipelines.scan import build_index

OPEN_SHARDS = 256  # file descriptors and indexes that are held at once


class _Open:
    """An open tar and its index; closes when the last reader has let go of it."""

    def __init__(self, tar: Path, index: ShardIndex) -> None:
        self.index = index
        try:
            self.file = os.open(tar, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise ShardError(f"shard {tar} cannot be opened: {error.strerror}") from None

    def __del__(self) -> None:
        if hasattr(self, "file"):
            os.close(self.file)


class TarSource:
    """Images in tars. Shards open when they are first read, and at most 256 stay open.

    kept: indexes of tars beside which none could be stored
    """

    def __init__(
        self,
        tars: list[Path],
        shards: tuple[Shard, ...],
        classes: list[str] | None,
        kept: dict[Path, ShardIndex],
    ) -> None:
        self.tars, self.shards, self._kept = tars, shards, kept
        self.shard_sizes = np.array([shard.images for shard in shards], dtype=np.int64)
        self._starts = [0, *np.cumsum(self.shard_sizes).tolist()]
        self.fingerprint = fingerprint(shards)
        self.stored_bytes = sum(shard.bytes for shard in shards)
        self._open: OrderedDict[int, _Open] = OrderedDict()
        self._lock = threading.Lock()
        self.classes = (
            classes if classes is not None else [str(n) for n in range(int(self.labels.max(initial=-1)) + 1)]
        )

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def labels(self) -> Int64[np.ndarray, " n"]:
        """The labels of all images; reads every index once."""
        parts = [self._index(number).labels for number in range(len(self.tars))]
        return np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)

    def read(self, sample: int) -> bytes:
        """The encoded image, by one `pread`. Raises ShardError where the shard is gone, cut or replaced."""
        number, place = self._place(sample)
        shard = self._shard(number)
        size, offset = int(shard.index.sizes[place]), int(shard.index.offsets[place])
        try:
            data = os.pread(shard.file, size, offset)
        except OSError as error:
            raise ShardError(
                f"shard {self.tars[number]} cannot be read at byte {offset:,}: {error.strerror}"
            ) from None
        if len(data) != size:
            raise ShardError(f"shard {self.tars[number]} is truncated: it was cut off while it was in use")
        return data

    def label(self, sample: int) -> int:
        number, place = self._place(sample)
        return int(self._shard(number).index.labels[place])

    def key(self, sample: int) -> str:
        number, place = self._place(sample)
        return self._shard(number).index.key(place)

    def shard(self, sample: int) -> str:
        return str(self.tars[self._place(sample)[0]])

    def _place(self, sample: int) -> tuple[int, int]:
        if not 0 <= sample < len(self):
            raise IndexError(f"sample {sample} of a data set of {len(self):,}")
        number = bisect_right(self._starts, sample) - 1
        return number, sample - self._starts[number]

    def _index(self, number: int) -> ShardIndex:
        tar, shard = self.tars[number], self.shards[number]
        index = stored_index(tar, self._kept, hashed=shard.checksum.startswith(HASHED))
        if (len(index), index.checksum) != (shard.images, shard.checksum):
            raise ShardError(
                f"shard {tar} or its index was changed: {NAME} describes another: pack the data again"
            )
        return index

    def _shard(self, number: int) -> _Open:
        with self._lock:
            if number in self._open:
                self._open.move_to_end(number)
                return self._open[number]
        shard = _Open(self.tars[number], self._index(number))
        check_index(shard.index, self.tars[number], shard.file)
        with self._lock:
            self._open[number] = shard
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        return shard


def stored_index(tar: Path, kept: dict[Path, ShardIndex], *, hashed: bool = False) -> ShardIndex:
    """The index of a tar: the one beside it, or a new one, which is stored there, or else in `kept`.

    hashed: whether a new one gets the checksum of the whole tar, which must be read for it
    """
    if tar in kept:
        return kept[tar]
    index = read_index(tar)
    if index is None:
        index = build_index(tar, hashed=hashed)
        try:
            write_atomically(index_path(tar), index_bytes(index))
        except OSError:  # a read-only place or a full disk: the index then lives in memory
            kept[tar] = index
    return index


def open_tars(tars: list[Path]) -> TarSource:
    """Any WebDataset tars as one data set. The first time, their headers are scanned, the indexes stored."""
    tars = sorted(dict.fromkeys(tars))
    if len({tar.resolve() for tar in tars}) < len(tars):
        raise ValueError("the list of shards names one tar twice")
    kept: dict[Path, ShardIndex] = {}
    shards = []
    for tar in tars:
        index = stored_index(tar, kept)
        with opened(tar) as file:
            check_index(index, tar, file)
        shards.append(Shard(tar.name, len(index), index.tar_bytes, index.checksum))
    source = TarSource(tars, tuple(shards), None, kept)
    if not len(source):
        raise ValueError(
            f"the {len(tars)} tars hold no images (.jpg, .jpeg, .png, .webp), {tars[0]} first among them"
        )
    return source


def open_packed(folder: Path) -> TarSource:
    """A data set that `pack` wrote. Every shard must be there and have its length."""
    manifest = read_manifest(folder)
    if manifest is None or not manifest.images:
        raise ValueError(f"{folder} holds no packed data set: there is no {NAME} with images in it")
    tars = [folder / shard.name for shard in manifest.shards]
    for tar, shard in zip(tars, manifest.shards):
        try:
            length = tar.stat().st_size
        except OSError:
            raise ShardError(
                f"shard {tar} is missing: {NAME} names it with {shard.images:,} images"
            ) from None
        if length != shard.bytes:
            state = "truncated" if length < shard.bytes else "not the one that was packed"
            raise ShardError(f"shard {tar} is {state}: it has {length:,} bytes, {NAME} says {shard.bytes:,}")
    return TarSource(tars, manifest.shards, list(manifest.classes), {})
