"""Brings one remote file to a local one: by ranges, from where it was cut off, checked before it counts."""

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from pipelines.index import HASHED, ShardError, hash_shard
from pipelines.remote import store
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.wanted import Wanted

T = TypeVar("T")

PIECE = 8 << 20  # bytes of one request; what a cut connection costs at most


def download(
    wanted: Wanted,
    file: int,
    *,
    seconds: float,
    stop: threading.Event,
    check: Callable[[int], str | None] = lambda file: None,
) -> None:
    """Completes the open `file`, which may hold the beginning of `wanted` already.

    check: why the complete file is not what is wanted, or None; besides its size, checksum and tag
    Raises ShardError, naming the shard, when it is missing, was replaced, or makes no progress for `seconds`;
    OSError where the local disk fails.
    """
    for again in (False, True):
        if again:  # it may have been damaged on its way, or put together from two versions: once more, whole
            os.ftruncate(file, 0)
        _arrive(wanted, file, seconds=seconds, stop=stop)
        reason = _wrong(wanted, file) or check(file)
        if reason is None:
            os.fsync(file)
            return
    os.ftruncate(file, 0)
    raise ShardError(
        f"shard {wanted.public} is not the one that this data set was opened with: {reason}; "
        "it was replaced or damaged: restore it, or pack the data again"
    )


def _arrive(wanted: Wanted, file: int, *, seconds: float, stop: threading.Event) -> None:
    """Appends what is missing, piece by piece. Each piece may take `seconds` to succeed."""

    def attempt(action: Callable[[], T]) -> T:
        try:
            return patiently(action, wanted.name, seconds=seconds, stop=stop)
        except Failure as failure:
            raise ShardError(store.sentence(wanted.url, failure)) from None

    if not wanted.checksum:
        attempt(partial(_same, wanted))
    while (have := os.fstat(file).st_size) < wanted.size:
        piece = attempt(partial(_piece, wanted, have))
        _write(file, piece, have)
    if not wanted.checksum:
        attempt(partial(_same, wanted))  # replaced while it was read


def _piece(wanted: Wanted, begin: int) -> bytes:
    """The next bytes from `begin`; at least one."""
    end = min(begin + PIECE, wanted.size)
    data = store.read(wanted.url, begin, end)
    if len(data) == end - begin:
        return data
    if len(data) == wanted.size:  # the server does not know ranges and gave all of it
        return data[begin:]
    if len(data) > end - begin:
        raise Failure(f"it has {len(data):,} bytes, not {wanted.size:,}: it was replaced", final=True)
    if not data:
        raise Failure(f"it ends after {begin:,} of {wanted.size:,} bytes")
    return data  # a short answer is a beginning, too


def _same(wanted: Wanted) -> None:
    """Raises Failure where the server's copy is not the one that the data set was opened with."""
    now = store.stamp(wanted.url)
    if now.size != wanted.size:
        raise Failure(f"it was replaced: it has {now.size:,} bytes, not {wanted.size:,}", final=True)
    if wanted.tag and now.tag != wanted.tag:
        raise Failure("it was replaced after the data set was opened", final=True)


def _wrong(wanted: Wanted, file: int) -> str | None:
    if wanted.checksum.startswith(HASHED) and hash_shard(file) != wanted.checksum:
        return "its checksum differs"
    return None


def _write(file: int, data: bytes, offset: int) -> None:
    """Writes all of `data`, or raises OSError (the disk is full) leaving a beginning of it."""
    view = memoryview(data)
    while view:
        count = os.pwrite(file, view, offset)
        view, offset = view[count:], offset + count
