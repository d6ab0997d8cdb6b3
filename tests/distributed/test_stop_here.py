"""Stopping and asking after a run that is no job needs its directory, and no cluster."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.lock import lock
from raymask.distributed import dashboard
from raymask.distributed.dashboard import NoCluster
from raymask.distributed.job_status import status
from raymask.distributed.jobs import stop
from raymask.driver import driving, note
from raymask.run import LOCK
from raymask.signals import asked_to_stop
from raymask.standing import saved_step
from raymask.stopping import stop_here
from tests.distributed.head import free_ports
from tests.raymask.test_standing import checkpoint, training, write


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (port,) = free_ports(1)
    monkeypatch.setattr(dashboard, "DEFAULT", f"http://127.0.0.1:{port}")


def run_in(folder: Path) -> Path:
    """The directory of a run that has only begun."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("{}")
    return folder


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Somebody trains there, and ends within a moment once it was asked."""

    def train() -> None:
        with (run / LOCK).open("ab") as file:
            lock(file, busy="")
            locked.set()
            until = time.monotonic() + 20
            while not asked_to_stop(run) and time.monotonic() < until:
                time.sleep(0.05)
            time.sleep(0.3)
            checkpoint(run, 60)

    locked = threading.Event()
    thread = threading.Thread(target=train)
    thread.start()
    locked.wait()
    yield
    thread.join()
    assert asked_to_stop(run), "it ended by itself"


def test_a_run_of_this_machine_is_asked_to_end_and_waited_for(tmp_path: Path):
    run = run_in(tmp_path / "runs" / "first")
    write(run, training(60))
    said: list[str] = []
    with pytest.raises(ValueError, match=r"nobody trains in .*first: there is nothing to stop"):
        stop(str(run), address=None, say=said.append)
    assert not asked_to_stop(run) and not said
    with held(run):
        assert stop(str(run), address=None, say=said.append) is None
        assert saved_step(run) == 60, "it is over by then"
    assert said == [
        f"{run} is asked to write a checkpoint and end",
        f"{run} has stopped at step 60 of 200: go on with 'raymask resume {run}'",
    ]


def test_a_search_is_asked_by_its_directory_too(tmp_path: Path):
    search = tmp_path / "search"
    search.mkdir()
    (search / "search.yaml").write_text("search: {trials: 4}")
    with held(search):
        assert stop(str(search), address=None, say=print) is None


def test_who_does_not_end_is_waited_for_only_so_long(tmp_path: Path):
    run, said = run_in(tmp_path / "run"), list[str]()
    with (run / LOCK).open("ab") as file:
        lock(file, busy="")
        with pytest.raises(TimeoutError, match=r"has not ended within 1 seconds .* still asked to"):
            stop_here(run, say=said.append, seconds=1)


def test_a_run_that_only_starts_is_asked_to_end_and_leaves_nothing(tmp_path: Path):
    run, said, begun = tmp_path / "runs" / "first", list[str](), threading.Event()

    def start() -> None:
        with driving(run) as mark:
            note(mark, "Ray is started")
            begun.set()
            until = time.monotonic() + 20
            while not asked_to_stop(run) and time.monotonic() < until:
                time.sleep(0.05)
            if not asked_to_stop(run):
                said.append("nobody asked")

    driver = threading.Thread(target=start)
    driver.start()
    begun.wait()
    assert list(status(str(run), address=None))[1] == "      starting"
    assert stop(str(run), address=None, say=said.append) is None
    driver.join()
    assert said == [
        f"{run} is asked to end before it begins",
        f"{run} was stopped before it began, and left nothing: the same command starts it again",
    ]
    assert not run.parent.exists()


def test_a_run_in_runs_is_found_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    run_in(tmp_path / "runs" / "first")
    assert next(iter(status("first", address=None))) == "run   runs/first"
    with held(Path("runs/first")):
        stop("first", address=None, say=print)


def test_a_run_that_is_not_there_is_said_so_with_the_one_that_was_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for ask in (lambda run: list(status(run, address=None)), lambda run: stop(run, address=None, say=print)):
        with pytest.raises(
            ValueError,
            match=r"^there is no run 'first' \(looked for .*/first and .*/runs/first, and no cluster answers",
        ):
            ask("first")
    run_in(tmp_path / "runs" / "first")
    for given in ("fist", "runs/fist", "elsewhere/frist"):
        with pytest.raises(ValueError, match=r"did you mean runs/first\?"):
            list(status(given, address=None))


def test_a_directory_that_is_no_run_is_left_as_it_is(tmp_path: Path):
    with pytest.raises(
        ValueError, match=r"is no run: the directory holds neither config\.yaml nor search\.yaml"
    ):
        stop(str(tmp_path), address=None, say=print)
    assert list(tmp_path.iterdir()) == []


def test_status_of_a_directory_is_where_its_run_stands(tmp_path: Path):
    run = run_in(tmp_path / "first")
    write(run, training(50))
    first, state, line, *_ = status(str(run), address=None)
    assert (first, state) == (f"run   {run}", "      stopped")
    assert line.startswith("      step 50 of 200, 400 of 1,600 images")


def test_a_named_cluster_must_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run_in(tmp_path / "first")
    with pytest.raises(NoCluster):
        stop(str(tmp_path / "first"), address=dashboard.DEFAULT, say=print)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", dashboard.DEFAULT)
    with pytest.raises(NoCluster):
        list(status(str(tmp_path / "first"), address=None))
