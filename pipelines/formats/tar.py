"""Tar headers, read and written directly: nothing is extracted, and only regular files are ever looked at.

Reads ustar, GNU (long names, large sizes) and pax archives. The writer is deterministic: no times or owners.
"""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from pipelines.formats.compressed import compression
from pipelines.formats.hashed import HashedFile

BLOCK = 512
END_MARK = bytes(2 * BLOCK)
MAX_EXTENSION = 1 << 20  # bytes of a pax header or a GNU long name; honest ones need a few hundred
# Records that tools fill up with zeros after the end mark: 10 KiB, or what `tar -b` is usually told.
RECORDS = (20 * BLOCK, *(BLOCK << power for power in range(12)))
REGULAR = (b"0", b"\0", b"7")
FOLDER = b"5"
NO_DATA = (b"1", b"2", b"3", b"4", FOLDER, b"6")
EXTENDED = (b"L", b"K", b"x", b"g")


@dataclass(frozen=True)
class Member:
    """A file inside a tar: its data are `size` bytes from `offset`; without any for a link or a device."""

    name: bytes
    offset: int
    size: int
    regular: bool = True


def _number(field: bytes) -> int:
    """An octal number, or GNU's base-256 for what octal cannot hold; -1 for neither."""
    if field[:1] in (b"\x80", b"\xff"):
        return int.from_bytes(field[1:], "big") - (1 << 8 * (len(field) - 1) if field[0] == 0xFF else 0)
    digits = field.split(b"\0", 1)[0].strip() or b"0"
    return int(digits, 8) if digits.isdigit() and max(digits) < ord("8") else -1


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(records: bytes) -> dict[bytes, bytes]:
    """The `length key=value` records of a pax header."""
    found, position = {}, 0
    while position < len(records):
        digits, space, _ = records[position : position + 8].partition(b" ")
        end = position + int(digits) if digits.isdigit() else 0
        if not space or not position < end <= len(records) or records[end - 1] != ord("\n"):
            raise ValueError("a pax record is malformed")
        key, _, value = records[position + len(digits) + 1 : end - 1].partition(b"=")
        found[key] = value
        position = end
    return found


def _check(header: bytes, position: int) -> None:
    expected = _number(header[148:156])
    if sum(header) - sum(header[148:156]) + 8 * 32 != expected:
        if not position and (kind := compression(header)):
            raise ValueError(f"it is compressed with {kind}, whatever it is called: uncompress it first")
        raise ValueError(f"the header at byte {position:,} is damaged, or this is not a tar")


def _check_end(file: int, length: int, position: int) -> None:
    """Raises ValueError unless nothing but the padding of a tar follows the end mark at `position`.

    Tools stop at the first zero block, and so would lose what lies behind one that damage has made, and
    behind the first of two tars that were joined. Reads two megabytes at most.
    """
    rest, most = length - position, max(RECORDS)
    pieces = (position, most), (max(position, length - most), most)
    if any(os.pread(file, size, start).strip(b"\0") for start, size in pieces):
        raise ValueError(
            f"it goes on after its end mark at byte {position:,}: it is damaged there, or two tars were "
            "joined by cat: make it again (tar -A joins tars)"
        )
    if not any(length % record == 0 and rest < record + len(END_MARK) for record in RECORDS):
        raise ValueError(
            f"it is zero from byte {position:,} on, for {rest:,} bytes, more than an end mark's padding: "
            "it was not written or copied to its end: copy it again, or make it again without tar -b"
        )


def members(file: int, length: int) -> Iterator[Member]:
    """The files, links and devices of the open tar `file` (a descriptor) of `length` bytes, in their order.

    Raises ValueError for a damaged or truncated archive; the caller knows and names the file.
    """
    position, long_name, pax = 0, b"", dict[bytes, bytes]()
    while True:
        header = os.pread(file, BLOCK, position)
        if len(header) < BLOCK:
            raise ValueError(
                f"it is truncated: it ends after {length:,} bytes without an end-of-archive mark"
            )
        if not header.strip(b"\0"):
            return _check_end(file, length, position)
        _check(header, position)
        kind, data = header[156:157], position + BLOCK
        size = _size(header, kind, pax)
        if size < 0:
            raise ValueError(f"the header at byte {position:,} is damaged: it has no size")
        if data + size > length:
            raise ValueError(
                f"it is truncated: {_name(header).decode(errors='replace')!r} ends beyond the {length:,} "
                "bytes of the file"
            )
        if kind in EXTENDED and size > MAX_EXTENSION:
            raise ValueError(f"the extended header at byte {position:,} claims {size:,} bytes, too many")
        if kind == b"L":
            long_name = os.pread(file, size, data).split(b"\0", 1)[0]
        elif kind == b"x":
            pax = _pax(os.pread(file, size, data))
        elif kind not in EXTENDED:
            if kind != FOLDER:
                name = pax.get(b"path") or long_name or _name(header)
                yield Member(name, data, size, regular=kind in REGULAR)
            long_name, pax = b"", {}
        position = data + size + -size % BLOCK


def _size(header: bytes, kind: bytes, pax: dict[bytes, bytes]) -> int:
    """The bytes that follow a header. Links, devices and folders have none, whatever they claim."""
    if kind in NO_DATA:
        return 0
    if kind == b"S" or any(key.startswith(b"GNU.sparse.") for key in pax):
        raise ValueError("it holds a sparse file, which cannot be read in place: pack it without --sparse")
    if b"size" in pax and kind not in EXTENDED:
        return int(pax[b"size"]) if pax[b"size"].isdigit() else -1
    return _number(header[124:136])


# A header for a name of up to 100 ASCII characters: regular file, mode 0444, no times, no owners.
_FRONT = b"0000444\0" + 2 * b"0000000\0"
_BACK = b"0" + bytes(100) + b"ustar\00000" + bytes(247)
_SUM = sum(_FRONT) + sum(_BACK) + 11 * ord("0") + 8 * ord(" ")


def header(name: str, size: int) -> bytes:
    """The header of a member, as Python's `tarfile` writes it; that is also asked for what is not simple."""
    if not name.isascii() or len(name) > 100 or size >= 8**11:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o444
        return info.tobuf(tarfile.PAX_FORMAT)
    title, digits = name.encode(), b"%011o" % size
    checksum = b"%06o\0 " % (_SUM + sum(title) + sum(digits))
    return title.ljust(100, b"\0") + _FRONT + digits + b"\0" + b"00000000000\0" + checksum + _BACK


def member_bytes(name: str, size: int) -> int:
    """The bytes that a member takes in an archive, headers and padding included."""
    return len(header(name, size)) + size + -size % BLOCK


class TarWriter:
    """Appends members to a file; the same members give the same bytes."""

    def __init__(self, file: HashedFile) -> None:
        self.file = file

    def add(self, name: str, data: bytes) -> int:
        """Writes one member; gives the offset of its data."""
        self.file.write(header(name, len(data)))
        offset = self.file.position
        self.file.write(data)
        self.file.write(bytes(-len(data) % BLOCK))
        return offset

    def close(self) -> None:
        """Writes the end-of-archive mark; the file itself stays open."""
        self.file.write(END_MARK)
        self.file.flush()
