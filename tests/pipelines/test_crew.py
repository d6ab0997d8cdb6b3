"""Threads that fill jobs: in order, at most so many ahead, and never hanging."""

import threading
import time

import pytest

from pipelines.crew import Crew


class Square:
    """A job whose rows are squares of its number."""

    def __init__(self, number: int, rows: int = 3, fails: bool = False):
        self.number, self.rows, self.fails = number, rows, fails
        self.filled = [0] * rows

    def fill(self, row: int) -> None:
        time.sleep(0.0005 * ((self.number * 7 + row * 3) % 5))
        if self.fails:
            raise OSError(f"job {self.number}")
        self.filled[row] = self.number**2

    def finish(self) -> list[int]:
        return self.filled


@pytest.mark.parametrize("threads", [0, 1, 2, 5])
def test_jobs_come_out_whole_and_in_order(threads):
    got = list(Crew(threads, ahead=2).run(Square(n, rows=n % 4) for n in range(20)))
    assert got == [[n**2] * (n % 4) for n in range(20)]


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_an_error_comes_when_the_turn_of_its_job_comes(threads):
    crew = Crew(threads, ahead=4)
    run = crew.run(Square(n, fails=n == 3) for n in range(10))
    assert [next(run) for _ in range(3)] == [[0] * 3, [1] * 3, [4] * 3]
    with pytest.raises(OSError, match="job 3"):
        next(run)
    assert next(run, None) is None


def test_an_error_where_jobs_are_made_reaches_the_caller():
    def jobs():
        yield Square(1)
        raise ValueError("no more")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no more"):
        list(Crew(2, ahead=2).run(jobs()))
    assert threading.active_count() == before


def test_no_more_jobs_are_begun_than_may_be_ready():
    begun = []

    def jobs():
        for n in range(50):
            begun.append(n)
            yield Square(n)

    run = Crew(2, ahead=3).run(jobs())
    next(run)
    time.sleep(0.05)
    assert len(begun) == 4
    run.close()


def test_threads_end_with_the_iteration():
    before = threading.active_count()
    run = Crew(3, ahead=2).run(Square(n) for n in range(1000))
    next(run)
    assert threading.active_count() == before + 3
    run.close()
    assert threading.active_count() == before


def test_closing_from_outside_wakes_a_caller_who_waits():
    crew = Crew(1, ahead=1)
    held = threading.Event()

    class Stuck(Square):
        def fill(self, row: int) -> None:
            held.wait(5)

    run = crew.run(iter([Stuck(1)]))
    threading.Timer(0.1, held.set).start()
    threading.Timer(0.05, crew.close).start()
    with pytest.raises(RuntimeError, match="closed"):
        next(run)
