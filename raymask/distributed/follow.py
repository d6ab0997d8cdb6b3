"""Reading along in the log of a run that other processes write."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

_EVERY = 0.5  # seconds


@contextmanager
def followed(log: Path) -> Iterator[None]:
    """Within it, and until all is read, what is appended to `log` is shown on stderr line by line."""
    ended = threading.Event()
    start = log.stat().st_size if log.exists() else 0
    reader = threading.Thread(target=_show, args=(log, start, ended), daemon=True)
    reader.start()
    try:
        yield
    finally:
        ended.set()
        reader.join()


def _show(log: Path, start: int, ended: threading.Event) -> None:
    last = False
    while not last:
        last = ended.wait(_EVERY)
        if log.exists():
            with log.open("rb") as file:
                file.seek(start)
                whole, newline, _ = file.read().rpartition(b"\n")
            if newline:
                start += len(whole) + 1
                tqdm.write(whole.decode(errors="replace"), file=sys.stderr)
