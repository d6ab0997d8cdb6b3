"""What doctor says of a cluster's nodes, and how a job's end is told to a shell."""

from importlib.metadata import version

import pytest

from raymask.distributed.job_logs import exit_code
from raymask.distributed.job_status import about
from raymask.distributed.jobs import Job
from raymask.distributed.node_facts import facts
from raymask.distributed.node_report import describe

GB = 10**9


def node(**changes: object) -> dict:
    """A worker with a GPU that is set up right."""
    resources = {"CPU": 15.0, "GPU": 1.0, "memory": 64 * GB, "object_store_memory": 19 * GB}
    right = {"ip": "10.0.0.5", "resources": {**resources, "accelerator_type:L4": 1.0}, **facts(), "cores": 16}
    return {**right, "shm": 24 * GB, **changes}


def test_a_node_that_is_right_is_one_line_of_what_it_has():
    found = describe(node())
    assert found.ok and found.what == "node 10.0.0.5"
    torch = version("torch")
    assert found.said == f"worker, 15 CPU of 16 cores, 1 GPU (L4), 64 GB, /dev/shm 24.0 GB, torch {torch}"


def test_the_head_is_told_from_workers():
    assert describe(node(resources={"node:__internal_head__": 1.0})).said.startswith(
        "head, 0 CPU of 16 cores, 0 GPU,"
    )


def other(package: str | None) -> dict:
    return {**facts()["versions"], "torch": package}


WRONG = {
    "too little shared memory": (
        {"shm": 64 << 20},
        "Ray's object store wants 19.0 GB of /dev/shm: enlarge it",
    ),
    "another torch": ({"versions": other("1.13.1")}, f"here torch is {version('torch')}: use one version"),
    "no torch": ({"versions": other(None)}, "torch is not installed there"),
    "another Python": ({"python": "3.9.2"}, "its Python is 3.9.2, here it is"),
    "no answer": ({"error": "the actor died"}, "does not answer: the actor died"),
}


@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_with_a_node_is_said_in_its_line(changes: dict, sentence: str):
    found = describe(node(**changes))
    assert not found.ok and sentence in found.said and len(found.said.splitlines()) == 1


def test_another_build_of_the_same_torch_is_no_other_version():
    assert describe(node(versions=other(version("torch").partition("+")[0] + "+cu999"))).ok


def job(status: str, code: int | None = None, *, message: str = "") -> Job:
    return Job("raymask-a-3", status, "a", "/mnt/a", "anna", 100.0, 160.0, code, message)


ENDS = {("SUCCEEDED", 0): 0, ("FAILED", 2): 2, ("FAILED", 1): 1, ("FAILED", -9): 137, ("STOPPED", None): 143}


@pytest.mark.parametrize(("end", "code"), {**ENDS, ("FAILED", None): 1}.items(), ids=str)
def test_a_jobs_end_is_an_exit_code(end: tuple[str, int | None], code: int):
    assert exit_code(job(*end)) == code


def test_a_job_says_how_it_ended_and_why():
    assert about(job("SUCCEEDED", 0)) == "raymask-a-3  succeeded, 01:00"
    failed = job("FAILED", 2, message="failed with exit code 2, last logs:\nraymask: no data at /a\n\n")
    assert about(failed) == "raymask-a-3  failed, 01:00, exit code 2: raymask: no data at /a"
    assert job("RUNNING").attempt == 3 and job("RUNNING").active and not job("STOPPED").active
