"""One ingest actor, as training sees it: its parts in order, whatever dies.

An actor that dies, with its node or alone, is replaced, and its successor begins with the first part that is
missing. What a batch holds is a function of its step, so nobody notices but by the time it takes.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from raymask.distributed.ingest_part import Part
from raymask.reason import first_line

T = TypeVar("T")

POLL = 0.25  # seconds between two looks at whether the loader was closed
DEATHS = 5  # of actors in a row, without a part between them, before the run is given up


class Closed(Exception):
    """The loader was closed."""


class Line:
    """A thread that keeps `ahead` parts of one actor asked for, and hands them over in order.

    hire: makes an actor that begins with a step; patience: seconds in which it has to have started
    """

    def __init__(
        self,
        hire: Callable[[int], Any],
        *,
        start: int,
        steps: int,
        ahead: int,
        patience: float,
        stop: threading.Event,
    ):
        self._hire, self._steps, self._ahead = hire, steps, ahead
        self._patience, self._stop = patience, stop
        self._next = start  # the first step whose part is missing
        self._ready: queue.Queue[Part] = queue.Queue(maxsize=1)
        self._actor: Any = None
        self.replaced = 0
        self.places: list[tuple[str, int]] = []  # machine and process of each actor so far
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def take(self) -> Part:
        """The next part. Raises Closed."""
        return take(self._ready, self._stop)

    def close(self) -> None:
        """Ends the thread and the actor; `stop` is set before."""
        self._thread.join()
        self._dismiss()

    def _work(self) -> None:
        try:
            self._run()
        except Closed:
            return
        except Exception as error:  # training must hear of it rather than wait
            self._give(Part(self._next, error=error))

    def _run(self) -> None:
        from ray.exceptions import RayError, RayTaskError

        deaths = 0
        while self._next < self._steps:
            before = self._next
            try:
                self._serve()
            except RayTaskError:
                raise
            except RayError as error:
                self._dismiss()
                deaths = deaths + 1 if self._next == before else 1
                self.replaced += 1
                if deaths == DEATHS:
                    raise RuntimeError(
                        f"{DEATHS} ingest actors died one after another at step {self._next} "
                        f"({first_line(error)}): look at their logs, and at the memory of their nodes"
                    ) from None

    def _serve(self) -> None:
        """Parts of one actor until the end, or until it dies."""
        import ray

        self._actor = self._hire(self._next)
        self.places.append(ray.get(self._await(self._actor.where.remote(), self._patience)))
        asked, coming = self._next, deque[Any]()
        while self._next < self._steps:
            while len(coming) < self._ahead and asked < self._steps:
                coming.append(self._actor.part.remote(asked))
                asked += 1
            part: Part = ray.get(self._await(coming[0], None))
            coming.popleft()
            self._give(part)
            self._next += 1
            if part.error is not None:
                raise Closed

    def _await(self, ref: Any, patience: float | None) -> Any:
        """`ref` once it is ready and here. Raises Closed, and ValueError where `patience` is not enough."""
        import ray

        waited = 0.0
        while not ray.wait([ref], timeout=POLL)[0]:
            if self._stop.is_set():
                raise Closed
            waited += POLL
            if patience is not None and waited >= patience:
                free, total = ray.available_resources(), ray.cluster_resources()
                raise ValueError(
                    f"an ingest actor did not start within {patience:.0f} s: {free.get('CPU', 0):g} of the "
                    f"cluster's {total.get('CPU', 0):g} CPU cores are free: lower ingest.actors or "
                    "ingest.cpus, add CPU nodes, or raise cluster.wait"
                )
        return ref

    def _give(self, part: Part) -> None:
        give(self._ready, part, self._stop)

    def _dismiss(self) -> None:
        import ray

        if self._actor is not None and ray.is_initialized():
            ray.kill(self._actor)
        self._actor = None


def take(ready: "queue.Queue[T]", stop: threading.Event) -> T:
    """The next item, waiting for it. Raises Closed."""
    while not stop.is_set():
        try:
            return ready.get(timeout=POLL)
        except queue.Empty:
            continue
    raise Closed


def give(ready: "queue.Queue[T]", item: T, stop: threading.Event) -> None:
    """Puts an item in when there is room. Raises Closed."""
    while not stop.is_set():
        try:
            return ready.put(item, timeout=POLL)
        except queue.Full:
            continue
    raise Closed
