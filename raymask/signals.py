"""Being asked to stop: SIGTERM and Ctrl-C are noted, and the loop ends at its next step boundary."""

import signal
from types import FrameType, TracebackType

_ASKS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Within it, the first SIGTERM or SIGINT sets `received`; a second one acts as it always did."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopRequest":
        for number in _ASKS:
            self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._restore()

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}


class Stopped(Exception):
    """A run ended early, on request and in good order.

    exit_code: 128 plus the signal's number, as a shell would report it
    """

    def __init__(self, message: str, *, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code
