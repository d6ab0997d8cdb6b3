"""One shard beside what is known of it: length, checksum, headers, index. Nothing is written."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pipelines.formats.beton import SUFFIX as BETON
from pipelines.formats.ffcv import ffcv_disagrees
from pipelines.formats.sharded import ShardSource, check_length
from pipelines.index import (
    ARRAYS,
    HASHED,
    ShardError,
    ShardIndex,
    hash_shard,
    opened,
    quick_check,
)
from pipelines.manifest import NAME, Shard
from pipelines.notes import NOTHING, Notes
from pipelines.scan import build_index
from pipelines.stored import check_index, is_current, read_index

# n: images of the shard


@dataclass(frozen=True)
class Expected:
    """A shard, and what its data set's manifest says of it, if there is one."""

    path: Path
    shard: Shard | None = None


@dataclass(frozen=True)
class Checked:
    """What is wrong with a shard, in sentences, how many images can be looked for in it, and its notes."""

    expected: Expected
    problems: tuple[str, ...]
    images: int
    notes: Notes = NOTHING


def check_shard(expected: Expected, *, ffcv: bool) -> Checked:
    """Compares a shard with its manifest, its index and, if asked for, what plain ffcv reads from it."""
    path, problems = expected.path, []
    checksum, said = _checksum(expected)
    problems += said
    scanned, said = _tried(lambda: build_index(path))
    problems += said if checksum else []  # one sentence is enough for a shard that is gone or cut
    stored, said = _tried(lambda: read_index(path))
    problems += said
    if stored is not None and checksum:
        problems += _index_problems(path, stored, scanned, checksum)
    if ffcv and path.suffix.lower() == BETON and scanned is not None and (other := ffcv_disagrees(path)):
        problems.append(f"shard {path}: {other}")
    index = scanned if scanned is not None else stored
    if index is None or not path.exists():
        return Checked(expected, tuple(problems), 0)
    return Checked(expected, tuple(problems), len(index), index.notes.of(path))


def _checksum(expected: Expected) -> tuple[str, list[str]]:
    """The checksum of a shard, "" where it is gone or has another length, and what is wrong with it."""
    path, shard = expected.path, expected.shard
    try:
        if shard is not None:
            check_length(path, shard)
        with opened(path) as file:
            found = hash_shard(file)
    except (ShardError, OSError) as error:
        return "", [str(error)]
    if shard is not None and shard.checksum.startswith(HASHED) and found != shard.checksum:
        return found, [f"shard {path} was changed: its checksum is not the one in {NAME}"]
    return found, []


def _tried(look: Callable[[], ShardIndex | None]) -> tuple[ShardIndex | None, list[str]]:
    try:
        return look(), []
    except (ShardError, OSError) as error:
        return None, [str(error)]


def _index_problems(path: Path, stored: ShardIndex, scanned: ShardIndex | None, checksum: str) -> list[str]:
    """What is wrong with the index beside a shard. checksum: of the shard as it is."""
    problems = []
    try:
        if not is_current(stored, path):
            return []  # it is built anew when next used
        with opened(path) as file:
            check_index(stored, path, file)
    except (ShardError, OSError) as error:
        return [str(error)]
    if stored.checksum.startswith(HASHED) and stored.checksum != checksum:
        problems.append(f"shard {path} was changed: its checksum is not the one in its index")
    if scanned is not None and not _equal(stored, scanned):
        problems.append(f"the index of shard {path} describes other images or labels than lie in it")
    return problems


def _equal(one: ShardIndex, other: ShardIndex) -> bool:
    same = all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ARRAYS)
    return same and one.names == other.names and np.array_equal(_widths(one), _widths(other))


def _widths(index: ShardIndex) -> Int64[np.ndarray, " n"]:
    return np.zeros(len(index), dtype=np.int64) if index.widths is None else index.widths


def open_as_it_is(path: Path) -> ShardSource | None:
    """The images of a shard, however damaged it is; None where nothing says where they lie."""
    scanned, _ = _tried(lambda: build_index(path))
    index = scanned if scanned is not None else _tried(lambda: read_index(path))[0]
    if index is None or not len(index) or not path.exists():
        return None
    length = path.stat().st_size
    with opened(path) as file:
        index = replace(index, shard_bytes=length, quick=quick_check(file, length))
    shard = Shard(path.name, len(index), length, index.checksum)
    return ShardSource([path], (shard,), list(index.names), {path: index})
