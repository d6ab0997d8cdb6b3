"""A node looks for a folder, and does not wait for a disk that hangs."""

import errno
import threading
import time
from pathlib import Path

import pytest

from pipelines.lock import is_locked
from raymask.config import load, to_tree
from raymask.distributed.share import Share, share_out
from raymask.distributed.storage import look, refuse_blind
from raymask.distributed.worker import work
from raymask.driver import drivers, driving, marked, note, refuse_driven
from raymask.signals import ask_to_stop, asked_to_stop
from raymask.standing import described, state_of
from raymask.which import find_run


def test_what_is_there_is_seen_and_what_is_not_is_not(tmp_path: Path):
    marker = tmp_path / "marker"
    assert look(str(marker)) == "unseen" and look(str(tmp_path / "nowhere" / "marker")) == "unseen"
    marker.touch()
    assert look(str(marker)) == "seen"


def test_a_disk_that_hangs_is_silent(tmp_path: Path):
    answers = threading.Event()

    def hangs(path: str) -> bool:
        return answers.wait(60)

    begun = time.monotonic()
    assert look(str(tmp_path), seconds=0.1, exists=hangs) == "silent"
    assert time.monotonic() - begun < 30
    answers.set()


def test_a_worker_that_is_alone_on_another_disk_does_not_begin_the_run_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)  # a worker goes where its driver is, and would stay there
    config = to_tree(load("dino", [f"run.root={tmp_path}", "run.resume=true"]))
    given = {"directory": str(tmp_path), "config": config, "bell": None}
    with marked(tmp_path) as marker:
        refuse_blind(marker)
    with pytest.raises(ValueError, match=r"run.root=.* is not seen by the cluster's node .* or run.mirror"):
        work({**given, "marker": marker})
    assert not any(tmp_path.iterdir())


def test_the_mark_of_a_driver_says_that_it_lives_and_goes_with_it(tmp_path: Path):
    run = tmp_path / "first"
    (tmp_path / ".seen-01234567-first").touch()  # of a driver that was killed
    (tmp_path / ".seen-01234567-also-first").touch()  # of that of another run
    with driving(run) as marker:
        assert drivers(run) == [marker] and is_locked(marker)
        assert state_of(run) == "running"
        with pytest.raises(ValueError, match=r"another process trains in .*first, or starts"), driving(run):
            pass  # two commands that looked before either had its mark
        assert drivers(run) == [marker], "whoever lives is left alone"
    assert drivers(run) == [] and state_of(run) == "stopped"
    assert (tmp_path / ".seen-01234567-also-first").exists()


def test_a_disk_without_locks_keeps_nobody_from_going_on_after_a_driver_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def unknown(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr("fcntl.flock", unknown)
    run = tmp_path / "first"
    (tmp_path / ".seen-01234567-first").touch()
    refuse_driven(run, patience=0)
    with driving(run) as mark:
        assert drivers(run) == [mark]


def test_a_mark_that_somebody_removed_does_not_end_a_run(tmp_path: Path):
    with driving(tmp_path / "first") as marker:
        marker.unlink()
        note(marker, "starting")
    assert not any(tmp_path.iterdir())


def test_a_run_that_starts_is_found_and_says_what_it_waits_for(tmp_path: Path):
    run = tmp_path / "runs" / "first"
    assert find_run(run) is None
    with driving(run) as mark:
        note(mark, "waiting for 2 workers with 8 CPU, for 20 s now")
        note(mark, "waiting for 2 workers, for 80 s now")
        assert find_run(run) == run and state_of(run) == "starting"
        assert described(run, "starting") == [
            "starting",
            "waiting for 2 workers, for 80 s now  (said 00:00 ago)",
            "the first line of training is not written yet",
            f"next: raymask stop {run}",
        ]
        note(mark, "")
        assert state_of(run) == "running", "they train, perhaps where this machine cannot see it"
        ask_to_stop(run)
        assert asked_to_stop(run) and state_of(run) == "stopping" and not run.exists()
    assert find_run(run) is None and state_of(run) == "stopped"
    assert not (tmp_path / "runs").exists(), "it left nothing"


def test_of_two_processes_that_start_one_run_the_second_is_refused(tmp_path: Path):
    run = tmp_path / "first"
    refuse_driven(run, patience=0)
    with driving(run), pytest.raises(ValueError, match=r"another process trains in .*first, or starts"):
        refuse_driven(run, patience=0)
    refuse_driven(run, patience=0)


def test_only_nodes_on_which_a_trial_may_live_have_to_see_its_folder():
    head, small, large = {"node:__internal_head__": 1.0}, {"CPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}
    alone = Share({"cpu": 2.0, "gpu": 1.0}, 4, 2.0, 1.0)
    assert [alone.may_use(node) for node in (head, small, large)] == [False, False, True]
    workers = share_out(load("dino", ["workers=2", "cluster.cpus=4"]), [head, large], at_once=None, trials=1)
    assert [workers.may_use(node) for node in (head, small, large)] == [True, False, True]
