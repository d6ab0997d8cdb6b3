"""Threads that fill jobs row by row, and hand them over in order.

A job is what becomes one batch. Rows are claimed in order and may be filled by any thread; the jobs come out
in the order in which they went in. An error belongs to its job and is raised to the caller when that job's
turn comes, so nothing hangs and nothing is lost before it.
"""

import threading
from collections import deque
from collections.abc import Generator, Iterator
from typing import Any, Protocol


class Job(Protocol):
    """`rows` independent pieces of work."""

    rows: int

    def fill(self, row: int) -> None: ...

    def finish(self) -> Any: ...


class _Open:
    """A job under way: rows claimed so far, rows still missing, and the first error."""

    def __init__(self, job: Job):
        self.job = job
        self.claimed = 0
        self.missing = job.rows
        self.error: BaseException | None = None


class Crew:
    """`threads` threads at work on at most `ahead` jobs before the one that is asked for.

    stop: is set before the threads are waited for, so that it ends what their rows wait for
    """

    def __init__(self, threads: int, *, ahead: int, stop: threading.Event | None = None):
        self._ahead = ahead
        self._jobs: deque[_Open] = deque()
        self._changed = threading.Condition()
        self._stop = stop or threading.Event()
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]

    def run(self, jobs: Iterator[Job]) -> Generator[Any, None, None]:
        """What each job finishes as, in order. Ends the threads when exhausted, closed or interrupted."""
        if not self._threads:
            for job in jobs:
                yield _in_this_thread(job)
            return
        for thread in self._threads:
            thread.start()
        try:
            yield from self._hand_over(jobs)
        finally:
            self.close()

    def ready(self) -> int:
        """Jobs that are filled and wait to be asked for."""
        with self._changed:
            return sum(not one.missing for one in self._jobs)

    def close(self) -> None:
        """Ends the threads after the row each is at; safe to call twice, and from another thread."""
        with self._changed:
            self._stop.set()
            self._changed.notify_all()
        for thread in self._threads:
            if thread.is_alive() and thread is not threading.current_thread():
                thread.join()

    def _hand_over(self, jobs: Iterator[Job]) -> Iterator[Any]:
        while True:
            while len(self._jobs) <= self._ahead and (job := next(jobs, None)) is not None:
                with self._changed:
                    self._jobs.append(_Open(job))
                    self._changed.notify_all()
            if not self._jobs:
                return
            with self._changed:
                head = self._jobs[0]
                while head.missing and not self._stop.is_set():
                    self._changed.wait()
                if head.missing:
                    raise RuntimeError("the loader was closed while a batch was asked of it")
                self._jobs.popleft()
            if head.error is not None:
                raise head.error
            yield head.job.finish()

    def _work(self) -> None:
        while (claim := self._claim()) is not None:
            one, row = claim
            error = None
            try:
                if one.error is None:
                    one.job.fill(row)
            except BaseException as raised:  # whatever it is, the caller must hear of it rather than wait
                error = raised
            with self._changed:
                one.missing -= 1
                one.error = one.error or error
                if not one.missing:
                    self._changed.notify_all()

    def _claim(self) -> tuple[_Open, int] | None:
        """The next row that nobody has claimed, waiting for one; None when the crew is to stop."""
        with self._changed:
            while not self._stop.is_set():
                for one in self._jobs:
                    if one.claimed < one.job.rows:
                        one.claimed += 1
                        return one, one.claimed - 1
                self._changed.wait()
            return None


def _in_this_thread(job: Job) -> Any:
    for row in range(job.rows):
        job.fill(row)
    return job.finish()
