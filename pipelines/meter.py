"""How far a long job is: a bar on a terminal, a line now and then in a log."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

EVERY = 10.0  # seconds between two lines


class Meter:
    """Counts `total` units of `what` on standard error, unless it is not `shown`. To be used in a `with`."""

    def __init__(
        self, what: str, total: int, *, done: int = 0, shown: bool = True, unit: str = "images"
    ) -> None:
        self.what, self.total, self.done, self.unit = what, total, done, unit
        self._shown = shown
        self._start, self._first, self._said = time.monotonic(), done, time.monotonic()
        terminal = shown and sys.stderr.isatty()
        self._bar = (
            tqdm(total=total, initial=done, desc=what, unit=f" {unit}", smoothing=0.1) if terminal else None
        )

    def __enter__(self) -> "Meter":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._shown:
            self._say()

    def add(self, count: int) -> None:
        """Counts `count` more."""
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._shown and time.monotonic() - self._said >= EVERY:
            self._say()

    def _say(self) -> None:
        self._said = time.monotonic()
        rate = (self.done - self._first) / max(1e-9, self._said - self._start)
        sys.stderr.write(
            f"{self.what}: {self.done:,} of {self.total:,} {self.unit}, {rate:,.0f} {self.unit}/s\n"
        )
        sys.stderr.flush()
