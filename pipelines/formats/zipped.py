"""Images in a zip, laid out like a folder of images; read in place, nothing is extracted."""

import hashlib
import re
import stat
import threading
import zipfile
import zlib
from pathlib import Path

from pipelines.decode import BadSample
from pipelines.formats.held import OpenFile
from pipelines.formats.layout import Layout, arrange, is_image, virtual_shard
from pipelines.index import ShardError
from pipelines.notes import NOTHING
from pipelines.regular import MAX_BYTES, open_regular, read_at

LOCAL_HEADER = 30


class ZipSource:
    """The images of a zip, sorted by path. Reads are `pread`s, so that threads do not wait for each other."""

    def __init__(self, path: Path, layout: Layout, members: dict[str, zipfile.ZipInfo]) -> None:
        self.path, self.layout = path, layout
        self.notes = NOTHING
        self.classes = list(layout.classes)
        self.labels = layout.labels
        self.shard_sizes = layout.shard_sizes
        self._members = [members[name] for name in layout.names]
        self.stored_bytes = sum(member.compress_size for member in self._members)
        self._open: OpenFile | None = None
        self._lock = threading.Lock()
        digest = hashlib.blake2b(digest_size=16)
        for name, label, member in zip(layout.names, layout.labels.tolist(), self._members):
            digest.update(
                f"{name}\0{label}\0{member.file_size}\0{member.CRC}\n".encode("utf-8", "surrogateescape")
            )
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self.layout.names)

    def label(self, sample: int) -> int:
        return int(self.labels[sample])

    def read(self, sample: int) -> bytes:
        """The member's bytes. Raises OSError, naming it, where they are damaged, BadSample for too many."""
        member = self._members[sample]
        if max(member.file_size, member.compress_size) > MAX_BYTES:
            raise BadSample("too many bytes")
        header = self._pread(LOCAL_HEADER, member.header_offset)
        skip = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        stored = self._pread(member.compress_size, member.header_offset + LOCAL_HEADER + skip)
        try:
            inflate = zlib.decompressobj(-15)
            data = (
                stored
                if member.compress_type == zipfile.ZIP_STORED
                else inflate.decompress(stored, member.file_size + 1)
            )
        except zlib.error as error:
            raise OSError(f"{member.filename} in {self.path} is damaged: {error}") from None
        if len(data) != member.file_size or zlib.crc32(data) != member.CRC:
            raise OSError(f"{member.filename} in {self.path} is damaged: its checksum does not fit")
        return data

    def key(self, sample: int) -> str:
        return self.layout.names[sample]

    def shard(self, sample: int) -> str:
        return f"{self.path} ({virtual_shard(sample)})"

    def _pread(self, size: int, offset: int) -> bytes:
        with self._lock:
            held = self._open = self._open or OpenFile(open_regular(self.path))
        try:
            data = read_at(held.file, size, offset)
        except OSError:
            with self._lock:  # what is stale stays so: the next attempt opens the file again
                self._open = None if self._open is held else self._open
            raise
        if len(data) != size:
            raise ShardError(f"{self.path} was cut off while it was in use")
        return data


def open_zip(path: Path) -> dict[str, ZipSource]:
    """The splits of a zip of images; one named "" where there are none.

    Raises ShardError for a damaged zip, ValueError for unsafe names, encryption or exotic compression.
    """
    try:
        with zipfile.ZipFile(path) as file:
            listed = file.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError) as error:
        raise ShardError(f"{path} cannot be read as a zip, it may be truncated: {error}") from None
    members: dict[str, zipfile.ZipInfo] = {}
    for member in listed:
        name = _safe(member.filename, path)
        if not is_image(name) or member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
            continue
        if name in members:
            raise ValueError(f"{path} holds {name} twice: make the zip again")
        _check(member, path)
        members[name] = member
    return {split: ZipSource(path, layout, members) for split, layout in arrange(members, str(path)).items()}


def _safe(name: str, path: Path) -> str:
    """The member's path. Raises ValueError for one that would lead out of the folder it is unpacked in."""
    plain = name.replace("\\", "/")
    if plain.startswith("/") or re.match(r"[A-Za-z]:", plain) or ".." in plain.split("/"):
        raise ValueError(f"{path} is refused: its member {name!r} points outside the archive")
    return plain


def _check(member: zipfile.ZipInfo, path: Path) -> None:
    if member.flag_bits & 1:
        raise ValueError(f"{path} is encrypted ({member.filename}): unpack it first")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(
            f"{path} is compressed in a way other than deflate ({member.filename}): unpack it first"
        )
