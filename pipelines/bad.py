"""Images that cannot be used: replaced by a rule, counted by cause, named in a file, and limited.

The rule of the limit: the distinct bad samples that are agreed on may be at most `limit` of the data set.
A reader that is alone agrees with itself at once; the ranks of a world agree now and then, all together, so
that all of them stop at the same step with the same sentence.
"""

import math
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.badlog import append_bad, log_of_rank, read_bad
from pipelines.decode import BadSample, Cause, decode
from pipelines.fetch import PATIENCE, fetched
from pipelines.names import shown
from pipelines.order import Order
from pipelines.source import Source


class BadSamples:
    """The distinct bad samples met so far, those of earlier runs in the logs included. Thread-safe.

    limit: share of the data set's samples that may be bad
    log: JSON lines file of the first rank, appended to; other ranks write beside it (pipelines.badlog)
    rank, world: in a world of several, bad samples count once `agree` was told them, and `check` is called
    """

    def __init__(
        self, source: Source, *, limit: float, log: Path | None = None, rank: int = 0, world: int = 1
    ):
        self._source = source
        self._allowed = math.ceil(limit * len(source))
        self._log = log_of_rank(log, rank) if log else None
        earlier = read_bad(log) if log else {}
        earlier = {sample: cause for sample, cause in earlier.items() if sample < len(source)}
        self._logged = set(earlier)
        self._alone = world == 1
        self._agreed: dict[int, str] = earlier if self._alone else {}
        self._fresh: dict[int, str] = {} if self._alone else earlier
        self._lock = threading.Lock()
        self._writing = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._agreed) + len(self._fresh)

    def __contains__(self, sample: int) -> bool:
        return sample in self._agreed or sample in self._fresh

    def causes(self) -> dict[int, str]:
        """The cause of each distinct bad sample."""
        with self._lock:
            return {**self._fresh, **self._agreed}

    def counts(self) -> dict[str, int]:
        """Distinct bad samples by cause."""
        return dict(Counter(self.causes().values()))

    def add(self, sample: int, cause: Cause) -> None:
        """Counts a bad sample once. Raises ValueError, where this reader is alone, if it is one too many."""
        with self._lock:
            if sample not in self._agreed:
                self._fresh.setdefault(sample, cause)
        if self._alone:
            self.agree(self.fresh())
            self.check()

    def fresh(self) -> dict[int, str]:
        """What was met here, or was in the logs, and is not agreed on yet."""
        with self._lock:
            return dict(self._fresh)

    def agree(self, found: Mapping[int, str]) -> None:
        """Takes over what all ranks have told each other; the same calls on each give the same counts."""
        with self._lock:
            for sample, cause in found.items():
                self._agreed.setdefault(sample, cause)
                if self._fresh.pop(sample, None) is None:
                    self._logged.add(sample)  # by the rank that met it

    def check(self) -> None:
        """Raises ValueError if more samples than allowed are bad, going by what is agreed on."""
        with self._lock:
            agreed = dict(self._agreed)
        if len(agreed) <= self._allowed:
            return
        causes = ", ".join(f"{count} {cause}" for cause, count in sorted(Counter(agreed.values()).items()))
        one = min(agreed)
        raise ValueError(
            f"{len(agreed)} of {len(self._source)} images cannot be used ({causes}; one of them is "
            f"{shown(self._source.key(one))} in {shown(self._source.shard(one))}): at most {self._allowed} "
            "are allowed, repair them or raise data.max_bad_fraction"
        )

    def name(self, sample: int, replaced_by: int | None) -> None:
        """Writes the line of a bad sample, unless it has one."""
        with self._lock:
            if self._log is None or sample in self._logged:
                return
            self._logged.add(sample)
            cause = self._agreed.get(sample) or self._fresh[sample]
        key, shard = self._source.key(sample), self._source.shard(sample)
        with self._writing:
            append_bad(self._log, sample=sample, key=key, shard=shard, cause=cause, replaced_by=replaced_by)


class Reader:
    """Pixels of samples, each bad one replaced by the next good one of its shard. Thread-safe.

    decode: what becomes of the encoded bytes, given those and max_pixels; raises BadSample
    patience: seconds for which a fault of the machine is waited for
    """

    def __init__(
        self,
        source: Source,
        order: Order,
        bad: BadSamples,
        *,
        max_pixels: int,
        decode: Callable[[bytes, int], Any] = decode,
        patience: float = PATIENCE,
    ):
        self._source, self._order, self.bad, self._max_pixels = source, order, bad, max_pixels
        self._decode, self._patience = decode, patience

    def pixels(
        self, sample: int, clock: Callable[[str], None], stop: threading.Event | None = None
    ) -> tuple[Any, int]:
        """What was decoded, by default RGB pixels uint8 [h, w, 3], and of which sample: `sample`, or what
        replaces it.

        Which one is a pure function of the data. `clock(part)` is called as "read" and "decode" end; `stop`
        ends the waiting for a fault of the machine. Raises ShardError.
        """
        passed: list[int] = []
        used: int | None = None
        try:
            for attempt in range(len(self._source)):
                candidate = self._order.replacement(sample, attempt) if attempt else sample
                pixels = None if candidate in self.bad else self._decoded(candidate, passed, clock, stop)
                if pixels is not None:
                    used = candidate
                    return pixels, used
        finally:
            for one in passed:  # also where the limit ends the run: its user wants to know them all
                self.bad.name(one, used)
        raise ValueError(f"none of the {len(self._source)} images of the data set can be read")

    def _decoded(
        self, sample: int, passed: list[int], clock: Callable[[str], None], stop: threading.Event | None
    ) -> Any:
        """The pixels of a sample, or None if it is bad, which is counted and noted in `passed`."""
        try:
            data = fetched(self._source, sample, patience=self._patience, stop=stop)
            clock("read")
            pixels = self._decode(data, self._max_pixels)
            clock("decode")
            return pixels
        except BadSample as error:
            passed.append(sample)
            self.bad.add(sample, error.cause)
            return None
