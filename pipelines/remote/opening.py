"""What lies behind URLs: a packed folder by its manifest, other shards by their indexes. Small files only."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pipelines.formats.compressed import is_compressed, why_refused
from pipelines.formats.sharded import Classes
from pipelines.index import HASHED, ShardIndex
from pipelines.manifest import NAME, Shard, parse_manifest
from pipelines.notes import NOTHING
from pipelines.remote import store
from pipelines.remote.cache import ShardCache
from pipelines.remote.indexes import RemoteIndexes
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.settings import Cache
from pipelines.remote.shards import AT_ONCE, RemoteShards
from pipelines.remote.urls import below, identity, is_shard, name_of, public
from pipelines.remote.wanted import Wanted

T = TypeVar("T")

SPLITS = ("train", "val", "test")


def open_remote(urls: Sequence[str], settings: Cache) -> dict[str, RemoteShards]:
    """The data sets, by split, in shards or in one folder. Raises ValueError in one sentence otherwise."""
    cache = ShardCache(settings)
    _refuse_compressed(urls)
    if all(is_shard(url) for url in urls):
        return {"": _open_shards(urls, cache)}
    (folder,) = urls
    if packed := _open_packed(folder, cache):
        return {"": packed}
    parts = {split: _open_packed(below(folder, split), cache) for split in SPLITS}
    if found := {split: part for split, part in parts.items() if part is not None}:
        return found
    files = _ask(
        folder, lambda: store.listing(below(folder, "*")), seconds=settings.opening, default=list[str]()
    )
    _refuse_compressed(files)
    if shards := list(filter(is_shard, files)):
        if len({name_of(url).rpartition(".")[2].lower() for url in shards}) > 1:
            raise ValueError(f"{public(folder)} holds tars and betons: name one kind by a glob")
        return {"": _open_shards(shards, cache)}
    _ask(folder, lambda: store.granted(below(folder, NAME)), seconds=settings.opening)
    raise ValueError(
        f"{public(folder)} is no packed data set (there is no {NAME}), no folder of shards and no shard: "
        "images behind URLs must be in shards, `raymask pack` makes them"
    )


def _refuse_compressed(urls: Sequence[str]) -> None:
    """Raises ValueError for compressed tars, because they would be passed over."""
    if found := [url for url in urls if is_compressed(name_of(url))]:
        raise ValueError(why_refused(public(found[0]), len(found) - 1))


def find(pattern: str, *, seconds: float) -> list[str]:
    """The URLs that a URL with `*` names; its server may be out of reach for `seconds`.

    Raises ValueError where there are none.
    """
    if "*" not in public(pattern):
        return [pattern]
    if found := _ask(pattern, lambda: store.listing(pattern), seconds=seconds, default=list[str]()):
        return found
    raise ValueError(f"no file matches {public(pattern)}")


def check_remote(url: str, *, seconds: float) -> None:
    """Raises ValueError where a shard is not there, or the server of a folder cannot be asked or refuses."""
    if is_shard(url):
        _ask(url, lambda: store.stamp(url), seconds=seconds)
    else:
        where = below(url, NAME)
        _ask(where, lambda: store.read(where), seconds=seconds, default=b"")


def read_text(url: str, *, seconds: float) -> str:
    """A small text file behind a URL, whose server may be out of reach for `seconds`. Raises ValueError."""
    return _ask(url, lambda: store.read(url), seconds=seconds).decode("utf-8")


def _open_packed(folder: str, cache: ShardCache) -> RemoteShards | None:
    """The data set that `pack` wrote, or None. Nothing is asked about its shards before they are read."""
    where = below(folder, NAME)
    text = _ask(where, lambda: store.read(where), seconds=cache.opening, default=b"")
    if not text:
        return None
    manifest = parse_manifest(text, public(where))
    if not manifest.images:
        raise ValueError(f"{public(where)} names no images: pack the data set again")
    wanted = [Wanted(below(folder, one.name), one.bytes, one.checksum) for one in manifest.shards]
    return RemoteShards(
        wanted, manifest.shards, list(manifest.classes), cache=cache, indexes=RemoteIndexes(cache)
    )


def _open_shards(urls: Sequence[str], cache: ShardCache) -> RemoteShards:
    """Any shards. Those without an index beside them are fetched, whole, to be scanned."""
    urls = sorted(dict.fromkeys(urls), key=identity)
    if len({identity(url) for url in urls}) < len(urls):
        raise ValueError("the list of shards names one file twice")
    indexes, never = RemoteIndexes(cache), threading.Event()

    def look(url: str) -> tuple[Wanted, ShardIndex]:
        stamp = _ask(url, lambda: store.stamp(url), seconds=cache.opening)
        wanted = Wanted(url, stamp.size, tag=stamp.tag)
        index = indexes.of(wanted, stop=never)
        checksum = index.checksum if index.checksum.startswith(HASHED) else ""
        return Wanted(url, stamp.size, checksum, stamp.tag), index

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(look, urls))
    classes, shards, notes = Classes(), [], NOTHING
    for wanted, index in found:
        classes.add(index, wanted.public)
        notes += index.notes.of(wanted.public)
        shards.append(Shard(name_of(wanted.url), len(index), index.shard_bytes, index.checksum))
    if not sum(shard.images for shard in shards):
        raise ValueError(f"the {len(urls)} shards hold no images, {public(urls[0])} first among them")
    files, named = [wanted for wanted, _ in found], classes.found()
    return RemoteShards(files, tuple(shards), named, cache=cache, indexes=indexes, notes=notes)


def _ask(url: str, action: Callable[[], T], *, seconds: float, default: T | None = None) -> T:
    """What `action` gives, or `default` where nothing is there. Raises ValueError."""
    try:
        return patiently(action, url, seconds=seconds)
    except Failure as failure:
        if failure.missing and default is not None:
            return default
        hint = "" if failure.final else "; data.cache.opening says for how many seconds to try"
        raise ValueError(f"{public(url)} cannot be opened: {failure.reason}{hint}") from None
