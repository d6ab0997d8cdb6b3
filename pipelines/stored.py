"""Indexes on disk, beside their shards: read, compared with the shard, built anew where it has changed."""

import os
from dataclasses import replace
from pathlib import Path

from pipelines.index import (
    HASHED,
    ShardError,
    ShardIndex,
    index_bytes,
    index_path,
    parse_index,
    quick_check,
    write_atomically,
)
from pipelines.regular import is_passing
from pipelines.scan import build_index


def read_index(shard: Path) -> ShardIndex | None:
    """The index beside a shard, or None. Raises ShardError for a damaged one, or what cannot be read; OSError
    for a fault of the machine, which may pass."""
    path = index_path(shard)
    try:
        return parse_index(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        said = f"{error}: delete it to have it built again"
    except OSError as error:
        if is_passing(error):
            raise
        said = f"{error.strerror}: move away what is there, or make it readable"
    raise ShardError(f"the index {path} cannot be used: {said}")


def is_current(index: ShardIndex, shard: Path) -> bool:
    """Whether a shard is as old and as long as when it was scanned. Raises ShardError where there is none.

    An index with the checksum of the whole shard is never out of date: where it does not fit, one is wrong.
    """
    return index.checksum.startswith(HASHED) or _stamp(shard) == (index.shard_bytes, index.modified)


def stored_index(path: Path, kept: dict[Path, ShardIndex], *, hashed: bool = False) -> ShardIndex:
    """The index of a shard: the one beside it, or a new one, which is stored there, or else in `kept`.

    hashed: whether a new one gets the checksum of the whole shard, which must be read for it
    """
    if path in kept:
        return kept[path]
    index = read_index(path)
    if index is None or not is_current(index, path):
        _, modified = _stamp(path)  # first: what changes while it is scanned is scanned again
        index = build_index(path, hashed=hashed)
        index = index if hashed else replace(index, modified=modified)
        try:
            write_atomically(index_path(path), index_bytes(index))
        except OSError:  # a read-only place or a full disk: the index then lives in memory
            kept[path] = index
    return index


def _stamp(shard: Path) -> tuple[int, int]:
    """Size and time of the last change. Raises ShardError where there is no shard, and OSError."""
    try:
        about = shard.stat()
    except OSError as error:
        if is_passing(error):
            raise
        raise ShardError(f"shard {shard} cannot be opened: {error.strerror}") from None
    return about.st_size, about.st_mtime_ns


def check_index(index: ShardIndex, shard: Path, file: int) -> None:
    """Raises ShardError unless the open shard `file` is, by length and ends, the one that was indexed."""
    length = os.fstat(file).st_size
    if length < index.shard_bytes:
        raise ShardError(f"shard {shard} is truncated: {length:,} of {index.shard_bytes:,} bytes are there")
    if length != index.shard_bytes or quick_check(file, length) != index.quick:
        raise ShardError(
            f"the index of shard {shard} does not match it: the shard was changed after it was indexed; "
            f"delete {index_path(shard).name} to have it built again, or restore the shard"
        )
