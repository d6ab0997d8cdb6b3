"""One process at a time: a lock on an open file, which the system releases however its process ends."""

import errno
import fcntl
from pathlib import Path
from typing import IO

_UNKNOWN = (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)  # file systems without locks hold nobody back


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of that file; file systems without locks cannot tell, so it may."""
    if not path.exists():
        return False
    try:
        with path.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def lock(file: IO[bytes], *, busy: str) -> None:
    """Takes the lock until `file` is closed. Raises ValueError, saying `busy`, where another holds it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(busy) from None
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
