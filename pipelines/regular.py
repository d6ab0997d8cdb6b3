"""Regular files, opened without waiting and read in full. What is a pipe or a device is never read.

The faults of opening and reading are of two kinds: those of the file itself, which come again each time, and
those of the machine or its storage, which pass or end the run, but say nothing of the data.
"""

import errno
import os
import stat
from pathlib import Path

MAX_BYTES = 1 << 30  # of one image; a larger claim is an accident or an attack

# No O_NONBLOCK matters to a regular file; opening a pipe for which nobody writes would wait for ever without.
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY

_OF_THE_FILE = {
    errno.ENOENT, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG,
    errno.EILSEQ, errno.EOVERFLOW, None,
}  # fmt: skip
_NO_FILE = {errno.ENXIO, errno.ENODEV}  # a socket, or a device that nothing drives


class NotRegular(OSError):
    """A path leads to a pipe, a socket, a device or a folder, where a regular file is meant."""


def is_passing(error: OSError) -> bool:
    """Whether an error is about the machine or its storage (no descriptors, no memory, a stale handle, ...)
    rather than about the one file."""
    return error.errno not in _OF_THE_FILE


def open_regular(path: str | Path) -> int:
    """A read-only descriptor. Raises NotRegular, also behind a link, and OSError."""
    try:
        file = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _NO_FILE:
            raise NotRegular from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotRegular
    return file


def read_at(file: int, size: int, offset: int) -> bytes:
    """`size` bytes of an open file from `offset` on; fewer only where it ends. One call may give fewer."""
    data = os.pread(file, size, offset)
    while 0 < len(data) < size and (more := os.pread(file, size - len(data), offset + len(data))):
        data += more
    return data
