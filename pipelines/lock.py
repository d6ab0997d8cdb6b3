"""One process at a time: a lock on an open file, which the system releases however its process ends."""

import errno
import fcntl
import time
from pathlib import Path
from typing import IO

_ASKING = 0.1  # seconds after which who only asked (is_locked) has let go
_UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems without locks hold nobody back


def is_locked(path: Path, *, unknown: bool = True) -> bool:
    """Whether a process holds the lock of that file; `unknown` where the file system has no locks."""
    if not path.exists():
        return False
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return isinstance(error, BlockingIOError) or unknown
    return False


def lock(file: IO[bytes], *, busy: str) -> None:
    """Takes the lock until `file` is closed. Raises ValueError, saying `busy`, where another holds it."""
    if not _take(file):
        time.sleep(_ASKING)
        if not _take(file):
            raise ValueError(busy)


def _take(file: IO[bytes]) -> bool:
    """Whether nobody else holds the lock, which this process then does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
    return True
