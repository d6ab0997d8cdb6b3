"""The local copies: never more bytes than the bound, shared by any number of processes and threads.

Three kinds of file, all in one folder and all named by digests: `NAME.tar` is complete and checked,
`NAME.BYTES.part` is on its way and counts as the BYTES it will have, `NAME.index` is small. What a process
reads it holds a shared `flock` on, and what it writes an exclusive one; the system releases both however the
process ends. Files are only given a name, taken or removed while the lock of the whole folder is held, and
only files that nobody holds are removed. What was cut off is continued by whoever wants it next.
"""

import errno
import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.index import ShardError, write_atomically
from pipelines.remote.settings import Cache
from pipelines.remote.wanted import KINDS, Wanted

POLL = 0.05  # seconds between two looks at a file that another process fetches
_WRITE = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
FULL = (errno.ENOSPC, errno.EDQUOT)
NEVER = float("inf")

Spare = Callable[[str], float | None]
"""When a copy is needed next, by its name: the furthest goes first, and None stays."""


class NoRoom(Exception):
    """All of the cache is in use."""


@dataclass(frozen=True)
class _Entry:
    path: Path
    name: str
    bytes: int
    used: float


def anything(name: str) -> float:
    """Gives up whatever was used longest ago."""
    return NEVER


class ShardCache:
    """The cache in one folder. Raises ValueError where it cannot be used."""

    def __init__(self, settings: Cache) -> None:
        self.folder, self.bound = settings.path, settings.bytes
        self.patience, self.opening, self.fetches = settings.patience, settings.opening, settings.fetches
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with self._locked():
                pass
        except OSError as error:
            raise ValueError(
                f"the cache {self.folder} cannot be used ({error.strerror}): "
                "set data.cache.folder to a place on a local disk that can be written"
            ) from None

    def hold(
        self, wanted: Wanted, fetch: Callable[[int], None], *, spare: Spare = anything, stop: threading.Event
    ) -> int:
        """A descriptor of the local copy, which `fetch(file)` completes and checks if it is not there yet.

        The copy cannot be removed before the descriptor is closed, which is the caller's to do. Raises NoRoom
        where it would need the place of files that are in use or not spare.
        """
        if wanted.size > self.bound:
            raise ShardError(
                f"shard {wanted.public} has {wanted.size:,} bytes, but the cache may hold {self.bound:,}: "
                "raise data.cache.gb"
            )
        while True:
            held, part = self._take(wanted, spare)
            if held is not None:
                return held
            if part is not None:
                return self._complete(wanted, part, fetch, spare)
            if stop.wait(POLL):
                raise ShardError("the loader was closed")

    def path(self, wanted: Wanted) -> Path:
        """Where a complete local copy lies; it stays there while a descriptor of it is held."""
        return self.folder / f"{wanted.name}.{wanted.kind}"

    def small(self, name: str) -> bytes | None:
        """The stored index of that name, or None."""
        try:
            return (self.folder / f"{name}.index").read_bytes()
        except OSError:
            return None

    def keep_small(self, name: str, data: bytes) -> bool:
        """Stores an index; False where there is no room for it."""
        try:
            with self._locked():
                self._make_room(len(data), anything)
                write_atomically(self.folder / f"{name}.index", data)
        except (NoRoom, OSError):
            return False
        return True

    def stored(self) -> int:
        """Bytes that the copies take or will take."""
        with self._locked():
            return self._stored()

    def _stored(self) -> int:
        return sum(entry.bytes for entry in self._entries())

    def _take(self, wanted: Wanted, spare: Spare) -> tuple[int | None, int | None]:
        """The copy, or else the file to complete, locked and with room made for it; neither while another
        completes it."""
        with self._locked():
            if (held := self._held(wanted)) is not None:
                return held, None
            try:
                file = os.open(self._part(wanted), _WRITE)
            except FileNotFoundError:
                self._make_room(wanted.size, spare)
                file = self._new_part(wanted)
            if _locks(file):
                return None, file
            os.close(file)
            return None, None

    def _new_part(self, wanted: Wanted) -> int:
        try:
            return os.open(self._part(wanted), _WRITE | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise NoRoom if error.errno in FULL else error from None

    def _held(self, wanted: Wanted) -> int | None:
        try:
            file = os.open(self.path(wanted), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.utime(file)
        return file

    def _complete(self, wanted: Wanted, file: int, fetch: Callable[[int], None], spare: Spare) -> int:
        try:
            while True:
                try:
                    fetch(file)
                    break
                except OSError as error:
                    if error.errno not in FULL:
                        raise
                    self._give_way(wanted, file, spare)
            with self._locked():
                self._part(wanted).rename(self.path(wanted))
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
                os.utime(file)
        except BaseException:
            os.close(file)  # what has arrived stays, for the next one who wants it
            raise
        return file

    def _give_way(self, wanted: Wanted, file: int, spare: Spare) -> None:
        """The disk is full before the bound is reached: removes the next spare copy, or gives up."""
        with self._locked():
            if self._remove_one(spare):
                return
            os.ftruncate(file, 0)
            self._part(wanted).unlink(missing_ok=True)
        raise NoRoom

    def _make_room(self, size: int, spare: Spare) -> None:
        while self._stored() + size > self.bound:
            if not self._remove_one(spare):
                raise NoRoom

    def _remove_one(self, spare: Spare) -> bool:
        needed = [(spare(entry.name), entry) for entry in self._entries()]
        spares = [(next_use, entry) for next_use, entry in needed if next_use is not None]
        for _, entry in sorted(spares, key=lambda pair: (-pair[0], pair[1].used)):
            if _remove(entry.path):
                return True
        return False

    def _part(self, wanted: Wanted) -> Path:
        return self.folder / f"{wanted.name}.{wanted.size}.part"

    def _entries(self) -> list[_Entry]:
        found = []
        for file in os.scandir(self.folder):
            name, _, kind = file.name.partition(".")
            size, _, rest = kind.partition(".")
            if kind in (*KINDS, "index") or rest == "part":
                try:
                    about = file.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                length = int(size) if rest == "part" and size.isdigit() else about.st_size
                found.append(_Entry(Path(file.path), name, length, about.st_mtime))
        return found

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """The lock of the whole folder: held for a moment at a time, never while bytes are fetched."""
        file = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


def _locks(file: int) -> bool:
    """Takes the exclusive lock of an open file, if nobody has it or reads it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _remove(path: Path) -> bool:
    """Removes a file that nobody holds."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not _locks(file):
            return False
        path.unlink(missing_ok=True)
        return True
    finally:
        os.close(file)
