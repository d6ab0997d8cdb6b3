"""Runs as jobs of a cluster: sent there, found again by the name of the run, stopped in good order.

A job of ours carries the name and the folder of its run, and who sent it, as metadata; nothing else is ever
looked at, let alone stopped.
"""

from __future__ import annotations

import getpass
import os
import re
import sys
import time
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from raymask.distributed import packaging, token
from raymask.distributed.dashboard import answers, connect, find_address, is_open, reach
from raymask.distributed.job_command import Command, command
from raymask.stopping import GRACE, Say, stop_here
from raymask.which import find_run, no_run

if TYPE_CHECKING:
    from ray.job_submission import JobDetails

    from raymask.distributed.jobs_client import JobsClient

RUN, FOLDER, USER = "raymask_run", "raymask_folder", "raymask_user"
ACTIVE = ("PENDING", "RUNNING")
_EVERY = 10.0  # seconds between two lines about a job that is waited for


@dataclass(frozen=True)
class Job:
    """One attempt at a run on a cluster.

    status: PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED; times in seconds since 1970
    exit_code: of the command, once it has ended by itself
    """

    id: str
    status: str
    run: str
    folder: str
    user: str | None
    begun: float
    ended: float | None
    exit_code: int | None
    message: str

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.status in ACTIVE

    @property
    def attempt(self) -> int:
        """Its number among the jobs of the run."""
        last = self.id.rpartition("-")[2]
        return int(last) if last.isdecimal() else 1


def submit(
    verb: str, arguments: list[str], *, address: str | None, say: Say, here: Path
) -> tuple[str, JobsClient, Job]:
    """Sends a run to a cluster; gives its address, a client of it and the job.

    Raises ValueError, before anything is sent, for whatever would fail there."""
    what = command(verb, arguments, here=here)
    where = find_address(address, configured=what.address)
    client = connect(where)
    package = packaging.look(here)
    packaging.check(package, needed=what.files, token=token.file())
    every = all_jobs(client, where=where)
    _refuse_a_second(every, what)
    alike = [job.attempt for job in every if job.id == f"{prefix(what.name)}-{job.attempt}"]
    identity = f"{prefix(what.name)}-{1 + max(alike, default=0)}"
    if is_open(where):
        say(f"{where} runs programs for everybody who reaches it: start the cluster with RAY_AUTH_MODE=token")
    say(f"sending {package} to {where}")
    with answers(where):
        _send(client, what, identity, package.folder)
        say(f"job {identity}: {what.entrypoint}")
        return where, client, job_of(client.get_job_info(identity))


def _send(client: JobsClient, what: Command, identity: str, folder: Path) -> None:
    """One submission. No token goes with it: a job takes that of the node it runs on."""
    try:
        client.submit_job(
            entrypoint=what.entrypoint,
            submission_id=identity,
            metadata={RUN: what.name, FOLDER: what.folder, USER: _user()},
            runtime_env={
                "working_dir": str(folder),
                # Ray's own 3 seconds would tear a job from its last checkpoint.
                "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(GRACE), "RAY_USAGE_STATS_ENABLED": "0"},
            },
        )
    except RuntimeError as error:
        if "already exists" in str(error):
            raise ValueError(
                f"somebody has just submitted {identity}: see 'raymask status {what.name}'"
            ) from None
        raise


def _refuse_a_second(jobs: list[Job], what: Command) -> None:
    for job in jobs:
        if job.active and job.folder == what.folder:
            raise ValueError(
                f"run '{what.name}' is on the cluster already, as job {job.id} ({job.status.lower()}): see "
                f"'raymask status {what.name}', or end it first with 'raymask stop {what.name}'"
            )


def all_jobs(client: JobsClient, *, where: str) -> list[Job]:
    """All jobs of all runs that the cluster knows, the newest last."""
    with answers(where):
        found = [job_of(each) for each in client.list_jobs() if (each.metadata or {}).get(RUN)]
    return sorted(found, key=lambda job: (job.begun, job.attempt))


def prefix(name: str) -> str:
    """What the ids of a run's jobs begin with; a name that no id can hold is told apart by its hash."""
    clean = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    if clean != name:
        clean = f"{clean}-{blake2b(name.encode(), digest_size=4).hexdigest()}"
    return f"raymask-{clean}"


def find(client: JobsClient, run: str, *, where: str) -> list[Job]:
    """The jobs of a run, given by its name or by its folder, the newest last.

    Raises ValueError where runs in different folders have the name.
    """
    folder = str(Path(run).expanduser().absolute()) if "/" in run else None
    every = all_jobs(client, where=where)
    jobs = [job for job in every if (job.folder == folder if folder is not None else job.run == run)]
    folders = sorted({job.folder for job in jobs})
    if len(folders) > 1:
        raise ValueError(f"several runs are called '{run}': give one of the folders {', '.join(folders)}")
    return jobs


def look_up(run: str, *, address: str | None) -> tuple[Path | None, JobsClient | None, list[Job], str]:
    """Where a run lies on this machine, given by its name or directory, and its jobs at an address.

    What is in runs/ comes first; a cluster is asked for its jobs if one answers, and must if it was named.
    Raises ValueError where nothing is known of the run.
    """
    where, here = find_address(address), find_run(run)
    client = reach(where, address=address, here=here is not None)
    sought = run if here is None else str(here.absolute())
    jobs = find(client, sought, where=where) if client is not None else []
    if here is None and not jobs:
        asked = (
            "no cluster answers" if client is None else "raymask has sent no job of that name to the cluster"
        )
        raise ValueError(no_run(run, elsewhere=f"{asked} at {where}"))
    return here, client, jobs, where


def stop(run: str, *, address: str | None, say: Say) -> Job | None:
    """Has a run write a checkpoint and end: its job, for which it waits, or who trains in its directory here.

    Raises ValueError where there is none, or where the job is not the user's own.
    """
    here, client, jobs, where = look_up(run, address=address)
    if client is None or not (jobs and jobs[-1].active):
        if here is None:
            raise ValueError(
                f"the run '{run}' is not running: its job {jobs[-1].id} has ended ({jobs[-1].status.lower()})"
            )
        stop_here(here, say=say)
        return None
    job = jobs[-1]
    if job.user not in (None, _user()) and "/" not in run:
        raise ValueError(
            f"job {job.id} of the run '{run}' was sent by {job.user}: if you mean it, name the run by its "
            f"folder, raymask stop {job.folder}"
        )
    say(f"stopping job {job.id}: it writes a checkpoint first")
    with answers(where):
        client.stop_job(job.id)
    return wait(client, job, where=where, seconds=GRACE + 30, say=say)


def wait(client: JobsClient, job: Job, *, where: str, seconds: float, say: Say | None = None) -> Job:
    """The job once it has ended; `say` hears that it has not. Raises TimeoutError if it has not by then."""
    begun = spoken = time.monotonic()
    while True:
        with answers(where):
            job = job_of(client.get_job_info(job.id))
        now = time.monotonic()
        if not job.active:
            return job
        if now - begun > seconds:
            raise TimeoutError(f"job {job.id} has not ended within {seconds:.0f} seconds: ask again")
        if say is not None and now - spoken > _EVERY:
            spoken = now
            say(f"waiting for job {job.id} to end, for {now - begun:.0f} s now")
        time.sleep(0.5)


def job_of(found: JobDetails) -> Job:
    """A job as Ray tells of it."""
    metadata = found.metadata or {}
    ended = found.end_time / 1e3 if found.end_time else None
    return Job(
        id=str(found.submission_id or found.job_id),
        status=found.status.value,
        run=metadata.get(RUN, ""),
        folder=metadata.get(FOLDER, ""),
        user=metadata.get(USER),
        begun=(found.start_time or 0) / 1e3,
        ended=ended,
        exit_code=found.driver_exit_code,
        message=found.message or "",
    )


def _user() -> str:
    """Who sends a job: a container's user may have no name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid()) if hasattr(os, "getuid") else sys.platform
