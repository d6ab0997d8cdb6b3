"""Whose a job is: found by its run's name or folder, stopped by nobody else. A small server lists them."""

import getpass
from pathlib import Path

import pytest

from raymask.distributed import job_logs
from raymask.distributed.dashboard import connect
from raymask.distributed.job_logs import follow
from raymask.distributed.jobs import find, stop
from tests.distributed.test_job_refusals import Answers, _at_home, cluster, server  # noqa: F401  (a fixture)


def job(
    number: int, *, run: str = "night", folder: str = "/mnt/night", user: str = "", **more: object
) -> dict:
    known = {"raymask_run": run, "raymask_folder": folder, "raymask_user": user or getpass.getuser()}
    told = {"submission_id": f"raymask-{run}-{number}", "type": "SUBMISSION", "entrypoint": "x"}
    return {**told, "status": "RUNNING", "metadata": known, "start_time": 1000 * number, **more}


def listing(*jobs: dict) -> Answers:
    return {**cluster(mode="disabled"), "/api/jobs/": (200, list(jobs))}


def test_the_newest_job_of_a_run_is_found_by_name_and_by_folder():
    others = [job(1, run="day", folder="/mnt/day"), {**job(9), "metadata": {}}]
    with server(listing(job(2), *others, job(1, status="STOPPED"))) as address:
        client = connect(address)
        for run in ("night", "/mnt/night", "/mnt/night/"):
            assert [found.id for found in find(client, run, where=address)] == [
                "raymask-night-1",
                "raymask-night-2",
            ]
        assert find(client, "raymask-night-9", where=address) == []


def test_a_name_that_two_runs_have_needs_the_folder():
    with server(listing(job(1), job(2, folder="/mnt/b/night"))) as address:
        client = connect(address)
        with pytest.raises(
            ValueError, match="several runs are called 'night': give one of the folders /mnt/b/n"
        ):
            find(client, "night", where=address)
        (found,) = find(client, "/mnt/b/night", where=address)
        assert found.attempt == 2


def refused(address: str, run: str) -> str:
    with pytest.raises(ValueError, match="run") as error:
        stop(run, address=address, say=print)
    return str(error.value)


def test_the_job_of_somebody_else_is_not_stopped_by_its_name():
    with server(listing(job(1, user="anna"))) as address:
        said = refused(address, "night")
    assert "was sent by anna: if you mean it, name the run by its folder, raymask stop /mnt/night" in said


def test_what_has_ended_or_was_never_sent_is_not_stopped(tmp_path: Path):
    with server(listing(job(1, status="FAILED"))) as address:
        assert "is not running: its job raymask-night-1 has ended (failed)" in refused(address, "night")
        assert "raymask has sent no job of that name" in refused(address, "day")


def test_a_cluster_that_is_lost_while_a_job_is_followed_leaves_the_job_to_itself(monkeypatch):
    monkeypatch.setattr(job_logs, "PATIENCE", 1)
    with server(listing(job(1))) as address:
        client = connect(address)
        (found,) = find(client, "night", where=address)
    with pytest.raises(
        ConnectionError, match="out of reach for 1 seconds; the job may go on: see 'raymask status n"
    ):
        follow(client, found, where=address, show=print)
