"""Writes shards such that a kill at any moment leaves only whole ones."""

import os
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from pipelines.formats.tar import BLOCK, TarWriter, member_bytes
from pipelines.index import HASHED, index_bytes, index_path, make_index, quick_check, write_atomically
from pipelines.journal import Entry, Journal
from pipelines.manifest import Shard
from pipelines.plan import Packing

END_MARK = 2 * BLOCK


class ShardWriter:
    """One tar in the making, under a hidden name until `finish`. To be used in a `with`, which cleans up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._file = self._partial.open("wb+")
        self._tar = TarWriter(self._file)
        self._rows: list[tuple[int, int, int]] = []
        self._keys: list[bytes] = []

    def __len__(self) -> int:
        return len(self._rows)

    def __enter__(self) -> "ShardWriter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with suppress(OSError):  # what could not be flushed to a full disk is about to be deleted
            self._file.close()
        self._partial.unlink(missing_ok=True)

    def bytes_with(self, key: str, extension: str, data: bytes, label: int) -> int:
        """The size of the tar if one more image were added and the tar closed."""
        more = member_bytes(f"{key}.{extension}", len(data))
        more += member_bytes(f"{key}.cls", len(str(label))) if label >= 0 else 0
        return self._tar.position + more + END_MARK

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Appends an image, and its label where it has one."""
        offset = self._tar.add(f"{key}.{extension}", data)
        if label >= 0:
            self._tar.add(f"{key}.cls", str(label).encode())
        self._rows.append((offset, len(data), label))
        self._keys.append(key.encode("utf-8", "surrogateescape"))

    def finish(self) -> Shard:
        """Closes the tar, writes its index, and only then gives the tar its name."""
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        quick = quick_check(self._file.fileno(), self._tar.position)
        checksum = HASHED + self._tar.digest.hexdigest()
        index = make_index(
            self._rows, self._keys, shard_bytes=self._tar.position, quick=quick, checksum=checksum
        )
        write_atomically(index_path(self.path), index_bytes(index))
        self._partial.replace(self.path)
        return Shard(self.path.name, len(index), index.shard_bytes, checksum)


class SplitWriter:
    """The shards of one split, one after the other. To be used in a `with`, which drops an unfinished one.

    items: images handed in so far, those of an earlier call's shards included; bad: lines of the bad ones
    """

    def __init__(self, folder: Path, split: str, journal: Journal, packing: Packing) -> None:
        self.folder, self._split, self._journal, self._packing = folder, split, journal, packing
        done = journal.of(split)
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
        self.items += 1

    def add(self, key: str, extension: str, data: bytes, label: int) -> None:
        """Stores an image, in a new shard where the last one is full."""
        if self._shard is not None and self._full(self._shard.bytes_with(key, extension, data, label)):
            self.finish()
        if self._shard is None:
            name = f"{self._split or 'data'}-{len(self._journal.of(self._split)):06d}.tar"
            self._shard = self._open.enter_context(ShardWriter(self.folder / name))
        self._shard.add(key, extension, data, label)
        self.items += 1

    def finish(self) -> None:
        """Finishes the shard in the making, if there is one."""
        if self._shard is None:
            return
        done = Entry(self._split, self._shard.finish(), self.items, self.bad[self._since :])
        self._journal.add(done)
        self._since, self._shard = len(self.bad), None
        self._open.close()

    def _full(self, size: int) -> bool:
        assert self._shard is not None
        return size > self._packing.shard_bytes or len(self._shard) >= self._packing.shard_images
