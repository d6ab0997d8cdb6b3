"""Builds the index of a shard that came without one, by walking over its headers.

Only headers and labels (.cls, .json, .txt) are read. Whatever else lies in a tar, such as pickles, is stepped
over, never opened. What is an image by its name but must not be used (a link, a second image of one key, a
name that leads out of its folder) gets a place in the index all the same, so that it is counted and named.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from pipelines.formats.beton import SUFFIX as BETON
from pipelines.formats.ffcv import Beton
from pipelines.formats.layout import SUFFIXES
from pipelines.formats.tar import Member, members
from pipelines.index import FAULTS, ShardError, ShardIndex, hash_shard, make_index, opened, quick_check
from pipelines.labels import Labels
from pipelines.names import shown_bytes
from pipelines.notes import NOTHING, Notes

IMAGES = (*(suffix[1:] for suffix in SUFFIXES), "img", "image")
MAX_LABEL_FILE = 1 << 20
LABELS = ("cls", "json", "txt")


@dataclass(frozen=True)
class Scanned:
    """What the headers of a shard say: (offset, size, label) an image, and columns of `ShardIndex`."""

    rows: Sequence[tuple[int, int, int]] | Int64[np.ndarray, "n 3"]
    keys: list[bytes]
    names: tuple[str, ...] = ()
    notes: Notes = NOTHING
    widths: Int64[np.ndarray, " n"] | None = None


def build_index(path: Path, *, hashed: bool = False) -> ShardIndex:
    """Scans the headers of a tar or a beton. Raises ShardError, naming it, where that cannot be done.

    hashed: reads all of the shard for its checksum
    """
    with opened(path) as file:
        length = os.fstat(file).st_size
        try:
            found = (scan_beton if path.suffix.lower() == BETON else scan_tar)(file, length)
        except ValueError as error:
            raise ShardError(f"shard {path}: {error}") from None
        return make_index(
            found.rows,
            found.keys,
            shard_bytes=length,
            quick=quick_check(file, length),
            checksum=hash_shard(file) if hashed else "",
            widths=found.widths,
            names=found.names,
            notes=found.notes,
        )


def scan_beton(file: int, length: int) -> Scanned:
    """The images of an open beton. Raises ValueError where its tables are damaged."""
    beton = Beton.open(file, length)
    offsets, sizes, widths = beton.images()
    labels, notes = beton.labels()
    rows = np.stack([offsets, sizes, labels], axis=1)
    return Scanned(rows, beton.keys(), notes=notes, widths=widths if widths.any() else None)


def scan_tar(file: int, length: int) -> Scanned:
    """The images of an open tar. Raises ValueError where it is damaged, or its labels are of two kinds."""
    places, keys, labels, seen, notes = [], [], Labels(), set[bytes](), NOTHING
    for key, group in _groups(file, length):
        if (image := _chosen(group, IMAGES)) is None:
            continue
        places.append(_place(group[image], key in seen))
        keys.append(key)
        seen.add(key)
        if len(group) > 1:
            notes += _passed_over(group, image)
        kind = _label_of(group)
        if member := group.get(kind):
            labels.add(kind.rpartition(".")[2], _content(file, member), member.name)
        else:
            labels.add("", b"")
    numbers, names = labels.finish()
    notes += Notes(labels=labels.unusable, label=labels.example)
    return Scanned([(*place, label) for place, label in zip(places, numbers)], keys, names, notes)


def _passed_over(group: dict[str, Member], image: str) -> Notes:
    """The images of a sample besides the one that was chosen."""
    others = [kind for kind in group if kind != image and kind.rpartition(".")[2] in IMAGES]
    return Notes(images=len(others), image=shown_bytes(group[others[0]].name)) if others else NOTHING


def _place(member: Member, again: bool) -> tuple[int, int]:
    """Offset and size of an image, or what `ShardIndex` has for one that must not be used."""
    name = member.name
    fault = "duplicate key" if again else ""
    if name.startswith(b"/") or b".." in name.split(b"/"):
        fault = "unsafe name"
    if not member.regular:
        fault = "link or device"
    return (-1 - FAULTS.index(fault), 0) if fault else (member.offset, member.size)


def split_name(name: bytes) -> tuple[bytes, str]:
    """A member's WebDataset key (up to the first dot of its base name) and its extension in lower case."""
    folder, slash, base = name.rpartition(b"/")
    stem, _, extension = base.partition(b".")
    return folder + slash + stem, extension.decode("utf-8", "replace").lower()


def _groups(file: int, length: int) -> Iterator[tuple[bytes, dict[str, Member]]]:
    """The samples of a tar: runs of neighbouring members of one key, by extension.

    A second member of one extension makes no new sample of the others: it comes alone, after its namesake.
    """
    key, group, again = b"", dict[str, Member](), list[tuple[str, Member]]()
    for member in members(file, length):
        this, extension = split_name(member.name)
        if this.rpartition(b"/")[2] == b"" or not extension:
            continue  # hidden files, and files without an extension, belong to no sample
        if group and this != key:
            yield key, group
            yield from ((key, {kind: other}) for kind, other in again)
            group, again = {}, []
        if extension in group:
            again.append((extension, member))
        else:
            key, group[extension] = this, member
    if group:
        yield key, group
        yield from ((key, {kind: other}) for kind, other in again)


def _chosen(group: dict[str, Member], kinds: tuple[str, ...]) -> str | None:
    """The extension of a sample that is of one of these kinds: `.jpg` before `.anything.jpg`."""
    plain = [kind for kind in kinds if kind in group]
    ends = [extension for extension in group if extension.rpartition(".")[2] in kinds]
    return next(iter(plain + ends), None)


def _label_of(group: dict[str, Member]) -> str:
    """The extension of a sample's label; "" without one. Of dotted ones only `.anything.cls` can be meant."""
    plain = [kind for kind in LABELS if kind in group]
    return next(iter(plain), _chosen(group, ("cls",)) or "")


def _content(file: int, member: Member) -> bytes:
    if not member.regular:
        return b""
    return os.pread(file, min(member.size, MAX_LABEL_FILE), member.offset)
