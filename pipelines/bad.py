"""Images that cannot be used: replaced by a rule, counted by cause, named in a file, and limited."""

import json
import math
import threading
from collections import Counter
from pathlib import Path

import numpy as np

from pipelines.decode import BadSample, Cause, decode
from pipelines.order import Order
from pipelines.source import ShardError, Source


class BadSamples:
    """The distinct bad samples met so far. Thread-safe.

    limit: share of the data set's samples that may be bad; one more is a ValueError
    log: JSON lines file, one for each distinct bad sample; appended to
    """

    def __init__(self, source: Source, *, limit: float, log: Path | None = None):
        self._source = source
        self._allowed = math.ceil(limit * len(source))
        self._log = log
        self._logged = _samples_in(log) if log else set()
        self._causes: dict[int, Cause] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._causes)

    def __contains__(self, sample: int) -> bool:
        return sample in self._causes

    def counts(self) -> dict[str, int]:
        """Distinct bad samples by cause."""
        with self._lock:
            return dict(Counter(self._causes.values()))

    def add(self, sample: int, cause: Cause) -> None:
        """Counts a bad sample once. Raises ValueError where there are too many."""
        with self._lock:
            self._causes[sample] = cause
            bad = len(self._causes)
        if bad > self._allowed:
            causes = ", ".join(f"{count} {cause}" for cause, count in sorted(self.counts().items()))
            raise ValueError(
                f"{bad} of {len(self._source)} images cannot be used ({causes}; the last one is "
                f"{self._source.key(sample)} in {self._source.shard(sample)}): at most {self._allowed} are "
                "allowed, repair them or raise data.max_bad_fraction"
            )

    def name(self, sample: int, replaced_by: int) -> None:
        """Writes the line of a bad sample, unless it has one."""
        with self._lock:
            if self._log is None or sample in self._logged:
                return
            self._logged.add(sample)
            line = {
                "sample": sample,
                "key": self._source.key(sample),
                "shard": self._source.shard(sample),
                "cause": self._causes[sample],
                "replaced_by": replaced_by,
            }
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _samples_in(log: Path) -> set[int]:
    """The samples that earlier runs named; a line torn by a kill is no line."""
    found = set()
    for line in log.read_text().splitlines() if log.exists() else ():
        try:
            found.add(int(json.loads(line)["sample"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


class Reader:
    """Pixels of samples, each bad one replaced by the next good one of its shard. Thread-safe."""

    def __init__(self, source: Source, order: Order, bad: BadSamples, *, max_pixels: int):
        self._source, self._order, self.bad, self._max_pixels = source, order, bad, max_pixels

    def fetch(self, sample: int) -> bytes:
        """The encoded image. Raises BadSample where one file, ShardError where a shard is unusable."""
        try:
            return self._source.read(sample)
        except ShardError:
            raise
        except OSError as error:
            raise BadSample("unreadable") from error

    def pixels(self, sample: int, clock) -> tuple[np.ndarray, int]:
        """RGB pixels uint8 [h, w, 3] and the sample that they are of: `sample`, or what replaces it.

        Which one is a pure function of the data. `clock(part)` is called as "read" and "decode" end.
        """
        passed: list[int] = []
        for attempt in range(len(self._source)):
            candidate = self._order.replacement(sample, attempt) if attempt else sample
            try:
                if candidate not in self.bad:
                    data = self.fetch(candidate)
                    clock("read")
                    pixels = decode(data, self._max_pixels)
                    clock("decode")
                    for one in passed:
                        self.bad.name(one, candidate)
                    return pixels, candidate
            except BadSample as error:
                self.bad.add(candidate, error.cause)
            passed.append(candidate)
        raise ValueError(f"none of the {len(self._source)} images of the data set can be read")
