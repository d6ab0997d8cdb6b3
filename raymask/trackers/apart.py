"""A tracker in a thread of its own: training never waits for it, and its failures are its own."""

import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import chain

from raymask.trackers.tracker import Tracker

WAITING = 1000  # lines that may wait for a slow tracker
PATIENCE = 30.0  # seconds that the end of a run waits for what is still to be written

_SAFE = "metrics.jsonl has everything, and the run goes on"


class Apart:
    """Hands lines to the tracker that `opened` makes, in order. What fails is said once, then left alone.

    missed: lines from before; reached: is told of each step that the tracker has taken
    """

    def __init__(
        self,
        kind: str,
        opened: Callable[[], Tracker],
        *,
        say: Callable[[str, str], None],
        missed: Iterable[tuple[int, Mapping[str, float]]] = (),
        reached: Callable[[int], None] | None = None,
    ) -> None:
        self._kind, self._say, self._missed, self._reached = kind, say, missed, reached
        self._lines: queue.Queue[tuple[int, Mapping[str, float]] | None] = queue.Queue(WAITING)
        self._trouble: str | None = None
        self._left_out = 0
        self._thread = threading.Thread(target=self._work, args=(opened,), name=f"track-{kind}", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Takes a line, and leaves it out where too many wait already."""
        try:
            if self._trouble is None:
                self._lines.put_nowait((step, dict(metrics)))
        except queue.Full:
            self._left_out += 1
        self._tell()

    def close(self) -> None:
        """Waits, but not for ever, until all lines are written."""
        with suppress(queue.Full):
            self._lines.put(None, timeout=PATIENCE if self._trouble is None else 0.01)
        self._thread.join(PATIENCE)
        if self._thread.is_alive():
            self._trouble = f"it is not done after {PATIENCE:.0f} s"
        self._tell()

    def _tell(self) -> None:
        """Says what went wrong, from the run's own thread."""
        if self._trouble is not None:
            self._say(
                f"track-{self._kind}", f"{self._kind} does not follow this run: {self._trouble}; {_SAFE}"
            )
        elif self._left_out:
            self._say(f"track-{self._kind}", f"{self._kind} is slow and does not get every line; {_SAFE}")

    def _work(self, opened: Callable[[], Tracker]) -> None:
        try:
            tracker = opened()
            for step, metrics in chain(self._missed, iter(self._lines.get, None)):
                tracker.log(step, metrics)
                if self._reached is not None:
                    self._reached(step)
            tracker.close()
        except Exception as error:  # whatever somebody else's client raises must not reach the run
            first = next(iter(str(error).splitlines()), "")
            self._trouble = f"{type(error).__name__}: {first}"[:300]
