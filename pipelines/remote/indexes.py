"""The indexes of remote tars: fetched from beside them, or built from the tar where there is none."""

import os
import threading
from pathlib import Path

from pipelines.index import HASHED, ShardError, ShardIndex, index_bytes, index_path, parse_index
from pipelines.remote import store
from pipelines.remote.cache import ShardCache
from pipelines.remote.download import download
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.urls import beside
from pipelines.remote.wanted import Wanted
from pipelines.scan import build_index

SUFFIX = index_path(Path("x")).name[1:]  # what continues the name of the tar


class RemoteIndexes:
    """Indexes by file, kept in the cache. Thread-safe."""

    def __init__(self, cache: ShardCache) -> None:
        self._cache = cache
        self._kept: dict[str, ShardIndex] = {}  # those that were built, where none can be stored

    def of(self, wanted: Wanted, *, stop: threading.Event) -> ShardIndex:
        """The index of a tar. Raises ShardError, naming the tar, where it cannot be had or used."""
        if wanted.name in self._kept:
            return self._kept[wanted.name]
        if stored := self._cache.small(wanted.name):
            try:
                return parse_index(stored)
            except ValueError:
                pass  # damaged on this disk: had again
        data = self._beside(wanted, stop)
        if data is None:
            index = self._scanned(wanted, stop)
            if not self._cache.keep_small(wanted.name, index_bytes(index)):
                self._kept[wanted.name] = index
            return index
        try:
            index = parse_index(data)
        except ValueError as error:
            raise ShardError(f"the index of shard {wanted.public} cannot be used: {error}") from None
        if index.shard_bytes != wanted.size:
            raise ShardError(
                f"the index of shard {wanted.public} does not match it: the shard has {wanted.size:,} bytes, "
                f"the indexed one had {index.shard_bytes:,}: index it again"
            )
        self._cache.keep_small(wanted.name, data)
        return index

    def _beside(self, wanted: Wanted, stop: threading.Event) -> bytes | None:
        url = beside(wanted.url, SUFFIX)
        try:
            return patiently(lambda: store.read(url), wanted.name, seconds=self._cache.patience, stop=stop)
        except Failure as failure:
            if failure.missing:
                return None
            raise ShardError(store.sentence(url, failure)) from None

    def _scanned(self, wanted: Wanted, stop: threading.Event) -> ShardIndex:
        path = self._cache.path(wanted)
        held = self._cache.hold(
            wanted,
            lambda file: download(wanted, file, seconds=self._cache.patience, stop=stop),
            stop=stop,
        )
        try:
            return build_index(path, hashed=wanted.checksum.startswith(HASHED))
        except ShardError as error:
            raise ShardError(str(error).replace(str(path), wanted.public)) from None
        finally:
            os.close(held)
