"""Being asked to stop: SIGTERM, Ctrl-C or a file in the run directory, seen at the next step boundary."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType, TracebackType
from typing import NoReturn

_ASKS = (signal.SIGTERM, signal.SIGINT)
_FILE = ".stop"


def ask_to_stop(run: Path) -> None:
    """Asks whoever trains in this run directory, on whatever machine, to save a checkpoint and end.

    Where there is no directory yet, whoever starts the run is asked.
    """
    (run / _FILE if run.is_dir() else _beside(run)).touch()


def asked_to_stop(run: Path) -> bool:
    """Whether somebody did since the run was started or resumed."""
    return (run / _FILE).exists() or _beside(run).exists()


def forget_stop(run: Path) -> None:
    """Takes back what was asked before."""
    (run / _FILE).unlink(missing_ok=True)
    _beside(run).unlink(missing_ok=True)


def _beside(run: Path) -> Path:
    return run.with_name(f"{_FILE}-{run.name}")


def exit_on_sigterm() -> None:
    """Has SIGTERM end this process in good order, as Ctrl-C does, wherever nobody waits for either."""
    signal.signal(signal.SIGTERM, _exit)


def _exit(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(128 + number)


@contextmanager
def signals_kept() -> Iterator[None]:
    """Within it, others may set handlers of their own for signals; after it, they are what they were."""
    ours = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in _ASKS if ours}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class StopRequest:
    """Within it, the first SIGTERM or SIGINT sets `received`; a second one acts as it always did.

    Outside of a process's main thread, where a cluster's workers train, signals are not ours to handle.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in _ASKS if threading.current_thread() is threading.main_thread() else ():
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received is not None, self.received or number
        self._restore()
        if again:  # others put this handler back, after the first one had taken it away
            signal.raise_signal(number)

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]


class Stopped(Exception):
    """A run ended early, on request and in good order.

    exit_code: 128 plus the signal's number, as a shell would report it
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Callable[[str], "Stopped"], tuple[str]]:
        """It comes back whole from the process of a trial."""
        return partial(Stopped, exit_code=self.exit_code), (str(self),)
