"""Writes shards such that a kill at any moment leaves only whole ones."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from pipelines.formats import beton, webdataset
from pipelines.formats.hashed import HashedFile
from pipelines.index import index_bytes, index_path, make_index, quick_check, write_atomically
from pipelines.journal import Entry, Journal
from pipelines.manifest import Shard
from pipelines.plan import Job, Packing

SUFFIXES = {"webdataset": webdataset.SUFFIX, "ffcv": beton.SUFFIX}


class Container(Protocol):
    """A shard of some format in the making."""

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Appends an image, and its label where it has one (-1 where not)."""
        ...

    def close(self) -> list[int]:
        """Ends the shard; gives where in it the images lie."""
        ...


class ShardWriter:
    """One shard in the making, under a hidden name until `finish`. To be used in a `with`, which cleans up.

    tar_bytes: what the samples take in a tar; the same for every format, so that all are cut alike
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._open = ExitStack()
        self._file = self._open.enter_context(self._partial.open("wb+"))
        self._hashed = HashedFile(self._file)
        self._shard = self._container()
        self._rows: list[tuple[int, int]] = []
        self._keys: list[bytes] = []
        self.tar_bytes = webdataset.EMPTY

    def _container(self) -> Container:
        if self.path.suffix == webdataset.SUFFIX:
            return webdataset.TarShard(self._hashed)
        shard = beton.BetonShard(self._hashed, self.path.parent)
        self._open.callback(shard.abandon)
        return shard

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # what could not be flushed to a full disk is about to be deleted
            self._open.close()
        self._partial.unlink(missing_ok=True)

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Appends an image, and its label where it has one."""
        self._shard.add(key, extension, data, label)
        self._rows.append((len(data), label))
        self._keys.append(key.encode("utf-8", "surrogateescape"))
        self.tar_bytes += webdataset.sample_bytes(key, extension, len(data), label)

    def finish(self) -> Shard:
        """Closes the shard, writes its index, and only then gives the shard its name."""
        offsets = self._shard.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        size, checksum = self._hashed.position, self._hashed.checksum
        index = make_index(
            [(offset, *row) for offset, row in zip(offsets, self._rows)],
            self._keys,
            shard_bytes=size,
            quick=quick_check(self._file.fileno(), size),
            checksum=checksum,
        )
        write_atomically(index_path(self.path), index_bytes(index))
        self._partial.replace(self.path)
        return Shard(self.path.name, len(index), size, checksum)


class SplitWriter:
    """The shards of one split, one after the other. To be used in a `with`, which drops an unfinished one.

    items: images handed in so far, those of an earlier call's shards included; bad: lines of the bad ones
    """

    def __init__(self, folder: Path, job: Job, journal: Journal, packing: Packing) -> None:
        self.folder, self._split, self._ends = folder, job.split, job.ends
        self._journal, self._packing = journal, packing
        done = journal.of(job.split)
        for entry in done:
            if not (folder / entry.shard.name).exists():
                raise ValueError(
                    f"the finished shard {folder / entry.shard.name} is gone: delete {folder.parent}"
                )
        folder.mkdir(exist_ok=True)
        self.items = done[-1].items if done else 0
        self.bad = [line for entry in done for line in entry.bad]
        self._since = len(self.bad)  # those after it belong to the shard in the making
        self._open = ExitStack()
        self._shard: ShardWriter | None = None

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.close()

    def reject(self, line: dict[str, Any]) -> None:
        """Counts an image that cannot be stored."""
        self.bad.append(line)
        self._count()

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Stores an image, in a new shard where the last one is full."""
        if self._full(webdataset.sample_bytes(key, extension, len(data), label)):
            self.finish()
        if self._shard is None:
            number = f"{len(self._journal.of(self._split)):06d}"
            name = f"{self._split or 'data'}-{number}{SUFFIXES[self._packing.format]}"
            self._shard = self._open.enter_context(ShardWriter(self.folder / name))
        self._shard.add(key, extension, data, label)
        self._count()

    def _count(self) -> None:
        self.items += 1
        if self._ends is not None and self.items in self._ends:
            self.finish()

    def finish(self) -> None:
        """Finishes the shard in the making, if there is one."""
        if self._shard is None:
            return
        done = Entry(self._split, self._shard.finish(), self.items, self.bad[self._since :])
        self._journal.add(done)
        self._since, self._shard = len(self.bad), None
        self._open.close()

    def _full(self, more: int) -> bool:
        if self._shard is None or self._ends is not None:
            return False
        too_large = self._shard.tar_bytes + more > self._packing.shard_bytes
        return too_large or len(self._shard) >= self._packing.shard_images
