"""A search that is asked to stop loses nothing, whoever asks and however."""

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raymask.distributed.tune import tune
from raymask.metrics import read
from raymask.signals import Stopped, ask_to_stop
from tests.distributed.searching import given, results, trained

pytestmark = pytest.mark.slow


def stopped(words: list[str], *, once: Callable[[], bool], ask: Callable[[], None]) -> int:
    """The exit code of a search that is asked to stop once something holds."""
    missed: list[str] = []

    def wait() -> None:
        until = time.monotonic() + 300
        while not once() and time.monotonic() < until:
            time.sleep(0.05)
        missed.extend([] if time.monotonic() < until else ["what the search was to be stopped at"])
        ask()

    asker = threading.Thread(target=wait)
    asker.start()
    with pytest.raises(Stopped, match="raymask resume") as ended:
        tune("mask_ratio", words)
    asker.join()
    assert not missed
    return ended.value.exit_code


def test_a_search_ends_in_good_order_by_a_signal_or_a_file_and_goes_on_where_it_was(
    ray_cluster, tmp_path: Path
):
    words = given(
        tmp_path, "budget=7200", "trials=3", "checks=2", "scheduler=none", "name=cut", "run.resume=true"
    )
    folder = tmp_path / "cut"
    first, second = (folder / "trials" / name for name in ("t000", "t001"))

    def states() -> dict[str, str]:
        return {trial["id"]: trial["state"] for trial in results(folder)["trials"]}

    def alone() -> bool:
        """The first trial is stopped by itself; then the search is to be."""
        if reached(first) > 2 and not (first / ".stop").exists():
            ask_to_stop(first)
        return reached(first) > 2 and states()["t000"] == "stopped" and reached(second) > 2

    assert stopped(words, once=alone, ask=lambda: os.kill(os.getpid(), signal.SIGTERM)) == 143
    assert states()["t000"] == "stopped" and "running" in states().values()
    before = reached(second)
    assert (second / "checkpoints" / "last").read_text().strip() >= f"step_{before:08d}"

    assert stopped(words, once=lambda: reached(second) > before + 5, ask=lambda: ask_to_stop(folder)) == 143
    assert states()["t001"] == "running"

    assert tune("mask_ratio", words) == folder
    assert states() == {"t000": "stopped", "t001": "done", "t002": "done"}
    assert [line[0] for line in trained(second)] == list(range(1, 201))


def reached(run: Path) -> int:
    """The last step that a line of the run tells of."""
    return max((line["step"] for line in read(run / "metrics.jsonl")), default=0)
