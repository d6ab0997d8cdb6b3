"""`pipe:COMMAND`: a shard that a shell command prints. Run only where the user allowed it, and once.

The output is kept as a file below the cache, under a digest of the command, and from then on is a shard like
any other: it can be read at random, and has an index. To have it printed again, delete it.
"""

import fcntl
import hashlib
import subprocess
from pathlib import Path
from typing import IO

from pipelines.remote.settings import Cache

PIPE = "pipe:"
PIECE = 1 << 20


def spool(command: str, cache: Cache) -> Path:
    """The file with what `command` prints. Raises ValueError where it fails or prints too much."""
    folder = cache.path / "pipes"
    path = folder / (hashlib.blake2b(command.encode(), digest_size=16).hexdigest() + ".tar")
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (folder / "lock").open("wb") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)  # of several processes, one runs it
            if not path.exists():
                _run(command.removeprefix(PIPE), path, cache.bytes)
    except OSError as error:
        raise ValueError(f"the output of a pipe cannot be kept in {folder}: {error.strerror}") from None
    return path


def _run(command: str, path: Path, most: int) -> None:
    name = (command.split() or ["nothing"])[0]  # the rest may hold a password
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        with subprocess.Popen(["/bin/sh", "-c", command], stdout=subprocess.PIPE) as running:
            assert running.stdout is not None
            fits = _copy(running.stdout, file, most)
            if not fits:
                running.kill()
        if not fits:
            raise ValueError(f"pipe:{name} ... prints more than the {most:,} bytes of data.cache.gb")
        if running.returncode:
            raise ValueError(
                f"pipe:{name} ... failed with status {running.returncode}: run it by hand to see why"
            )
    partial.rename(path)


def _copy(printed: IO[bytes], file: IO[bytes], most: int) -> bool:
    """Whether all that was printed fits into `most` bytes, and is in `file`."""
    while piece := printed.read(PIECE):
        most -= len(piece)
        if most < 0:
            return False
        file.write(piece)
    return True
