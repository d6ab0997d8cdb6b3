"""Who carries a run to workers: a mark beside its directory, from the command on, while its process lives.

    ROOT/.seen-01234567-NAME    locked by the driver of the run ROOT/NAME; it holds what is waited for

Nothing heavy is imported, so that asking costs nothing.
"""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from pathlib import Path

from pipelines.lock import is_locked, lock
from raymask.signals import forget_stop


def drivers(folder: Path) -> list[Path]:
    """The marks of those that carry the run in `folder` to workers, each locked while its process lives."""
    return list(folder.parent.glob(f".seen-????????-{escape(folder.name)}"))


def is_driven(folder: Path) -> bool:
    """Whether somebody carries a run to workers, though its directory need not be there yet."""
    return any(is_locked(mark) for mark in drivers(folder))


def refuse_driven(folder: Path, *, patience: float) -> None:
    """Raises ValueError where somebody else still carries the run to workers after so many seconds."""
    until = time.monotonic() + patience
    while _others(folder):
        if time.monotonic() >= until:
            raise _busy(folder)
        time.sleep(0.5)


def _others(folder: Path, *, than: Path | None = None) -> bool:
    """Whether others surely carry the run; a file system without locks holds nobody back."""
    return any(is_locked(mark, unknown=False) for mark in drivers(folder) if mark != than)


def _busy(folder: Path) -> ValueError:
    return ValueError(
        f"another process trains in {folder}, or starts its workers: see 'raymask status {folder}', "
        f"or end it first with 'raymask stop {folder}'"
    )


def waits_for(folder: Path) -> tuple[str, float] | None:
    """What the driver of a run said last that it waits for, and seconds since; None where it does not."""
    for mark in drivers(folder):
        with suppress(OSError):  # it may have gone meanwhile
            text = mark.read_text() if is_locked(mark) else ""
            if text:
                return text, max(0.0, time.time() - mark.stat().st_mtime)
    return None


def note(mark: Path, text: str) -> None:
    """Says in a driver's mark what its run waits for; nothing, if it does not wait any more."""
    with suppress(OSError), mark.open("r+") as file:  # that somebody removed it is no reason to end a run
        file.truncate()
        file.write(text)


@contextmanager
def driving(folder: Path) -> Iterator[Path]:
    """Marks this process as the driver of the run in `folder`; what killed ones left is removed.

    Raises ValueError where no mark can be written, and where another process did the same meanwhile. What was
    asked of a run that never began goes with it.
    """
    for left in drivers(folder):
        if not is_locked(left, unknown=False):
            left.unlink(missing_ok=True)
    with marked(folder.parent, run=folder.name) as mark:
        if _others(folder, than=mark):
            raise _busy(folder)
        try:
            yield mark
        finally:
            if not folder.exists():
                forget_stop(folder)


@contextmanager
def marked(root: Path, *, run: str | None = None) -> Iterator[Path]:
    """A locked file in `root`, for as long as others may look for it. The name is new: no cache knows it.

    A root that was made for it goes with it, if nothing else came there. Raises ValueError where none can be
    written.
    """
    new = f".seen-{uuid.uuid4().hex[:8]}"
    marker, made = root / (new if run is None else f"{new}-{run}"), not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        held = marker.open("ab")
    except OSError as error:
        raise ValueError(f"{root} cannot be written to ({error.strerror}): name another folder") from error
    with held:
        lock(held, busy=f"{marker} is taken")
        try:
            yield marker
        finally:
            with suppress(OSError):
                marker.unlink(missing_ok=True)
                if made:
                    root.rmdir()
