"""Stopping and asking after a run that is no job needs its directory, and no cluster."""

from pathlib import Path

import pytest

from pipelines.lock import lock
from raymask.distributed import dashboard
from raymask.distributed.dashboard import NoCluster
from raymask.distributed.job_status import status
from raymask.distributed.jobs import stop
from raymask.run import LOCK
from raymask.signals import asked_to_stop
from tests.distributed.head import free_ports
from tests.raymask.test_standing import training, write


@pytest.fixture(autouse=True)
def _no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    (port,) = free_ports(1)
    monkeypatch.setattr(dashboard, "DEFAULT", f"http://127.0.0.1:{port}")


def test_a_run_of_this_machine_is_asked_to_end(tmp_path: Path):
    run = tmp_path / "runs" / "first"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    said: list[str] = []
    with pytest.raises(ValueError, match=r"nobody trains in .*first: there is nothing to stop"):
        stop(str(run), address=None, say=said.append)
    assert not asked_to_stop(run) and not said
    with (run / LOCK).open("ab") as file:
        lock(file, busy="")
        assert stop(str(run), address=None, say=said.append) is None
    assert asked_to_stop(run) and said == [f"whoever trains in {run} is asked to write a checkpoint and end"]


def test_a_directory_that_is_no_run_is_left_as_it_is(tmp_path: Path):
    with pytest.raises(ValueError, match="no job of a run"):
        stop(str(tmp_path), address=None, say=print)
    assert list(tmp_path.iterdir()) == []


def test_status_of_a_directory_is_where_its_run_stands(tmp_path: Path):
    write(tmp_path / "first", training(50))
    lines = list(status(str(tmp_path / "first"), address=None))
    assert lines[0] == f"run   {tmp_path / 'first'}" and lines[1].startswith("      step 50 of 200")


def test_a_name_or_a_named_cluster_wants_one_that_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write(tmp_path / "first", training(50))
    with pytest.raises(NoCluster):
        list(status("first", address=None))
    with pytest.raises(NoCluster):
        stop(str(tmp_path / "first"), address=dashboard.DEFAULT, say=print)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", dashboard.DEFAULT)
    with pytest.raises(NoCluster):
        list(status(str(tmp_path / "first"), address=None))
