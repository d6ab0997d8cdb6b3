"""Whether a data set is whole: checksums, indexes, and every image decoded. Nothing is changed on disk.

from pipelines.verify import Verify, verify
found = verify("shards", Verify(fast=True))
print(found)        # every broken shard and every bad image, by name
assert found.whole
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from pipelines.checks import Checked, Expected, check_shard, open_as_it_is
from pipelines.data import available_cores
from pipelines.decode import BadSample
from pipelines.fetch import fetched
from pipelines.formats.compressed import why_refused
from pipelines.hands import How
from pipelines.index import ShardError
from pipelines.journal import JOURNAL
from pipelines.manifest import NAME, Shard, read_manifest
from pipelines.meter import Meter
from pipelines.names import shown
from pipelines.notes import NOTHING, Notes
from pipelines.paths import DEFAULT_CACHE, expand
from pipelines.plan import MAX_PIXELS
from pipelines.preparing import Item, prepared
from pipelines.remote.settings import Cache
from pipelines.remote.urls import is_remote, is_shard, public
from pipelines.settings import Settings
from pipelines.source import Source, compressed_in, open_splits, split_folders, without_manifest


class Verify(Settings):
    """How to verify.

    fast: only checksums, headers and indexes; no image is decoded
    ffcv: whether plain ffcv must read the same tables from betons
    workers: threads, each with a process to decode where that is worth it; none: one for each core
    max_pixels: height times width above which an image is bad
    cache: where shards behind URLs are kept, and how patiently they are asked for; its patience is for local
        files, too
    """

    fast: bool = False
    ffcv: bool = False
    workers: int | None = Field(default=None, ge=1)
    max_pixels: int = Field(default=MAX_PIXELS, ge=1)
    cache: Cache = DEFAULT_CACHE


@dataclass(frozen=True)
class Verified:
    """What was found. broken: sentences on shards; bad: (shard, name, cause) of images; notes: sentences on
    what is no fault."""

    path: str
    shards: int
    images: int
    decoded: bool
    broken: tuple[str, ...]
    bad: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.broken and not self.bad

    def __str__(self) -> str:
        what = "decoded" if self.decoded else "not decoded (fast)"
        shards = f" in {self.shards:,} shards" if self.shards else ""
        verdict = (
            "whole" if self.whole else f"{len(self.broken)} faults of shards, {len(self.bad)} bad images"
        )
        return "\n".join(
            [
                *(f"broken: {sentence}" for sentence in self.broken),
                *(f"bad: {shown(key)} in {shown(shard)}: {cause}" for shard, key, cause in self.bad),
                *(f"note: {sentence}" for sentence in self.notes),
                f"{self.path}: {verdict}; {self.images:,} images{shards}, {what}",
            ]
        )


@dataclass
class _Findings:
    broken: list[str]
    bad: list[tuple[str, str, str]]
    shards: int = 0
    images: int = 0
    notes: Notes = NOTHING
    known: dict[Path, dict[str, Shard]] = field(default_factory=dict)


def verify(path: str | Path, settings: Verify | None = None, *, progress: bool = True) -> Verified:
    """Looks at all of the data set, or of the shard, at `path`. Raises ValueError where there is none."""
    settings, found, name = settings or Verify(), _Findings([], []), public(str(path))
    workers = settings.workers or available_cores()
    shards, others = _parts(str(path), found, settings.cache)
    checked = _check_shards(shards, found, settings, workers, progress)
    how = How(None, settings.max_pixels, baseline=False, store=False)
    if checked and not settings.fast:
        with Meter("decode", sum(one.images for one in checked), shown=progress) as meter:
            for one in checked:
                shard = open_as_it_is(one.expected.path) if one.images else None
                if shard is not None:
                    _look(shard, found, how, workers, settings.cache.patience, meter)
    for source in others:
        found.images += len(source)
        found.notes += source.notes
        with Meter("read" if settings.fast else "decode", len(source), shown=progress) as meter:
            _look(source, found, None if settings.fast else how, workers, settings.cache.patience, meter)
    if not found.shards and not found.images and not found.broken:
        raise ValueError(f"{name} holds no images: there is nothing to verify")
    broken, bad = tuple(found.broken), tuple(found.bad)
    notes = found.notes.sentences()
    return Verified(name, found.shards, found.images, not settings.fast, broken, bad, notes)


def _parts(path: str, found: _Findings, cache: Cache) -> tuple[list[Expected], list[Source]]:
    """The shards at a path, and the sources in which there are none. What cannot be opened is broken."""
    names = expand(path, cache=cache)
    shards: list[Expected] = []
    sources: list[Source] = []
    for name in names:
        faults = len(found.broken)
        here = [] if is_remote(name) else _shards(Path(name), found)
        shards += here
        if not here and len(found.broken) == faults:
            try:
                sources += open_splits(name, cache=cache).values()
            except ShardError as error:
                found.broken.append(str(error))
    return shards, sources


def _shards(path: Path, found: _Findings) -> list[Expected]:
    """The shards that a local path is or holds."""
    if is_shard(path.name) and not path.is_dir():
        return [Expected(path, _known(path.parent, found).get(path.name))]
    if not path.is_dir():
        return []
    if (path / JOURNAL).exists():
        found.broken.append(f"packing into {path} was not finished: run the same pack again")
    packed, loose = ([path], {}) if (path / NAME).exists() else split_folders(path)
    if packed:
        found.broken += [without_manifest(folder, packed[0]) for folder in loose]
    known = [
        Expected(folder / name, shard) for folder in packed for name, shard in _known(folder, found).items()
    ]
    own = [] if packed else [one for one in sorted(path.iterdir()) if is_shard(one.name)]
    found.broken += map(why_refused, compressed_in(path) if own else [])
    return known + [Expected(one) for one in [*own, *(one for each in loose.values() for one in each)]]


def _known(folder: Path, found: _Findings) -> dict[str, Shard]:
    """The shards that a folder's manifest names, by name. It is read once, however many shards ask."""
    if folder not in found.known:
        found.known[folder] = {}
        try:
            manifest = read_manifest(folder)
            found.known[folder] = {shard.name: shard for shard in manifest.shards} if manifest else {}
        except ValueError as error:
            found.broken.append(str(error))
    return found.known[folder]


def _check_shards(
    shards: list[Expected], found: _Findings, settings: Verify, workers: int, progress: bool
) -> list[Checked]:
    """Checks every shard by itself, several at a time: hashing lets go of the GIL."""
    checked = []
    found.shards = len(shards)
    if not shards:
        return []
    meter = Meter("check", len(shards), shown=progress, unit="shards")
    with meter, ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        for one in pool.map(lambda expected: check_shard(expected, ffcv=settings.ffcv), shards):
            found.broken += one.problems
            found.images += one.images
            found.notes += one.notes
            checked.append(one)
            meter.add(1)
    return checked


def _look(
    source: Source, found: _Findings, how: How | None, workers: int, patience: float, meter: Meter
) -> None:
    """Decodes, or without `how` only reads, every image of a source; those it does not reach do not count."""
    numbers, looked_at = list(range(len(source))), 0
    if how is None:
        items = _read(source, numbers, patience)
    else:
        items = prepared(source, numbers, how, workers=workers, patience=patience)
    try:
        for item in items:
            if item.cause:
                found.bad.append((source.shard(item.sample), source.key(item.sample), item.cause))
            looked_at += 1
            meter.add(1)
    except ShardError as error:
        found.broken.append(str(error))
        found.images -= len(source) - looked_at


def _read(source: Source, numbers: list[int], patience: float) -> Iterator[Item]:
    for number in numbers:
        try:
            fetched(source, number, patience=patience)
            yield Item(number, b"", "")
        except BadSample as error:
            yield Item(number, b"", "", error.cause)
