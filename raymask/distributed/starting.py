"""What is said between a command and the first line of its run, which takes half a minute."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

_EVERY = 10.0  # seconds between two lines


@runtime_checkable
class Places(Protocol):
    """Whether workers have their places; since when they are known to lack them."""

    placed: bool
    since: float | None


class Starting:
    """Says every few seconds what a run waits for, until its train.log tells of a step.

    log: its train.log; None where all that workers print is shown, which tells more
    compiles: whether the first step is compiled before
    """

    def __init__(
        self, log: Path | None, places: Places, *, compiles: bool, say: Callable[[str], None]
    ) -> None:
        self.log = log
        self.places = places
        self.compiles = compiles
        self.say = say
        self.over = False
        self._from = _size(log)
        self._begun = self._said = time.monotonic()

    def look(self) -> None:
        """To be called often; speaks only every so often."""
        now = time.monotonic()
        if self.over or now - self._said < _EVERY:
            return
        self._said = now
        waits_for = self._waits_for()
        if waits_for is not None:
            self.say(f"starting, for {now - self._begun:.0f} s now: {waits_for}")

    def _waits_for(self) -> str | None:
        """What comes next; None where that is said elsewhere, or was."""
        written = _text(self.log, self._from)
        self.over = "  step " in written or (self.log is None and self.places.placed)
        if self.over:
            return None
        if written:
            return "the first steps are computed" + (", compiled before" if self.compiles else "")
        if self.places.placed:
            return "the workers load torch and open the data"
        return "Ray finds places for the workers" if self.places.since is None else None


def _size(log: Path | None) -> int:
    return log.stat().st_size if log is not None and log.exists() else 0


def _text(log: Path | None, start: int) -> str:
    """What was appended to a file."""
    if log is None or not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(start)
        return file.read().decode(errors="replace")
