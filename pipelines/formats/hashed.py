"""A file that is written once, from front to back, with the checksum of all of it."""

import hashlib
from io import BufferedIOBase

from pipelines.index import DIGEST, HASHED

PIECE = 1 << 20


class HashedFile:
    """Passes bytes on to a binary file; `checksum` is that of all of them, `position` their count.

    They go in large pieces: hashing and writing let go of the GIL, and many short waits for it would cost
    more than the work itself. What was written is in the file only after `flush`.
    """

    def __init__(self, file: BufferedIOBase) -> None:
        self.file, self.position = file, 0
        self._digest = hashlib.blake2b(digest_size=DIGEST)
        self._waiting = bytearray()

    def write(self, data: bytes) -> None:
        self._waiting += data
        self.position += len(data)
        if len(self._waiting) >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Passes on what waits; the file itself stays open."""
        self.file.write(self._waiting)
        self._digest.update(self._waiting)
        self._waiting = bytearray()

    @property
    def checksum(self) -> str:
        """The checksum of what was passed on, as an index and a manifest note it."""
        return HASHED + self._digest.hexdigest()
