"""Where the time of batches goes: seconds by what they were spent on."""

import threading
import time
from collections import defaultdict


class Timings:
    """Seconds by what they were spent on, summed over all threads."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, seconds: dict[str, float]) -> None:
        with self._lock:
            for name, value in seconds.items():
                self._seconds[name] += value

    def take(self) -> defaultdict[str, float]:
        with self._lock:
            taken, self._seconds = self._seconds, defaultdict(float)
        return taken


class Clock:
    """Splits the time of one row: `clock(part)` books what has passed since the last call."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def __call__(self, part: str) -> None:
        now = time.perf_counter()
        self.seconds[part] = self.seconds.get(part, 0.0) + now - self._last
        self._last = now
