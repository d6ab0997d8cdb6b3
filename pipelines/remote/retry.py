"""Patience: what fails for a moment is tried again, later and later, until it is clear that it stays so."""

import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from pipelines.streams import stream, uniform

T = TypeVar("T")

FIRST, LONGEST = 0.25, 30.0  # seconds between two attempts


class Failure(Exception):
    """One attempt failed; says why in a few words without any URL.

    final: trying again cannot help; missing: because the file is not there, or (denied) not for us
    """

    def __init__(self, reason: str, *, final: bool = False, missing: bool = False, denied: bool = False):
        super().__init__(reason)
        self.reason, self.denied = reason, denied
        self.missing = missing or denied
        self.final = final or self.missing


def pause(attempt: int, name: str) -> float:
    """Seconds to wait after the failed attempt number `attempt` (from 0): doubling, and spread.

    The spread is keyed by process and file, so that many processes do not come back at one moment.
    """
    spread = uniform(stream(os.getpid(), name), np.uint64(attempt))
    return min(LONGEST, FIRST * 2 ** min(attempt, 20)) * (0.5 + 0.5 * spread)


def patiently(
    action: Callable[[], T], name: str, *, seconds: float, stop: threading.Event | None = None
) -> T:
    """What `action` gives once it succeeds. Raises the last Failure when it is final, when `seconds` have
    passed since the first one, or when `stop` is set."""
    stop = stop or threading.Event()
    begun, attempt = time.monotonic(), 0
    while True:
        try:
            return action()
        except Failure as failure:
            left = begun + seconds - time.monotonic()
            if failure.final or left <= 0:
                tried = f" ({attempt + 1} attempts in {time.monotonic() - begun:.0f} s)" if attempt else ""
                failure.reason += tried
                raise
            if stop.wait(min(left, pause(attempt, name))):
                raise Failure("the loader was closed", final=True) from None
            attempt += 1
