"""Builds the index of a tar that came without one, by walking over its headers.

Only headers and labels (.cls, .json) are read. Whatever else lies in a tar - pickles, links, devices - is
stepped over, never opened.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipelines.formats.tar import Member, members
from pipelines.index import ShardError, ShardIndex, hash_shard, make_index, opened, quick_check

IMAGES = ("jpg", "jpeg", "png", "webp")
LABEL_FIELDS = ("label", "cls", "class_id", "target", "class")
MAX_LABEL_FILE = 1 << 20


def split_name(name: bytes) -> tuple[bytes, str]:
    """A member's WebDataset key (up to the first dot of its base name) and its extension in lower case."""
    folder, slash, base = name.rpartition(b"/")
    stem, _, extension = base.partition(b".")
    return folder + slash + stem, extension.decode("utf-8", "replace").lower()


def _label(file: int, member: Member, extension: str) -> int:
    """The label in a .cls or .json member; -1 where a JSON has none."""
    if member.size > MAX_LABEL_FILE:
        raise ValueError(f"the label file {member.name!r} has {member.size:,} bytes")
    text = os.pread(file, member.size, member.offset)
    try:
        value = int(text) if extension == "cls" else json.loads(text)
        if isinstance(value, dict):
            value = next((value[name] for name in LABEL_FIELDS if name in value), -1)
        if isinstance(value, bool) or not isinstance(value, int) or not -1 <= value < 1 << 31:
            raise ValueError
    except (ValueError, RecursionError):
        raise ValueError(f"the label in {member.name!r} is not a whole number: {text[:40]!r}") from None
    return value


def _groups(file: int, length: int) -> Iterator[tuple[bytes, dict[str, Member]]]:
    """The samples of a tar: runs of neighbouring members of one key, by extension."""
    key, group = b"", dict[str, Member]()
    for member in members(file, length):
        this, extension = split_name(member.name)
        if this.rpartition(b"/")[2] == b"" or not extension:
            continue  # hidden files, and files without an extension, belong to no sample
        if group and (this != key or extension in group):
            yield key, group
            group = {}
        key, group[extension] = this, member
    if group:
        yield key, group


def _image(group: dict[str, Member]) -> Member | None:
    """The image of a sample: `.jpg` before `.anything.jpg`."""
    plain = [group[extension] for extension in IMAGES if extension in group]
    ends = [member for extension, member in group.items() if extension.rpartition(".")[2] in IMAGES]
    return next(iter(plain + ends), None)


def build_index(tar: Path, *, hashed: bool = False) -> ShardIndex:
    """Scans the headers of a tar. Raises ShardError, naming it, where that cannot be done.

    hashed: reads all of the tar for its checksum
    """
    with opened(tar) as file:
        length = os.fstat(file).st_size
        rows: list[tuple[int, int, int]] = []
        keys: list[bytes] = []
        try:
            for key, group in _groups(file, length):
                if (image := _image(group)) is None:
                    continue
                named = next((name for name in ("cls", "json") if name in group), None)
                rows.append((image.offset, image.size, _label(file, group[named], named) if named else -1))
                keys.append(key)
        except ValueError as error:
            raise ShardError(f"shard {tar}: {error}") from None
        checksum = hash_shard(file) if hashed else ""
        return make_index(rows, keys, shard_bytes=length, quick=quick_check(file, length), checksum=checksum)
