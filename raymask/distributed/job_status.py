"""`raymask status RUN`: its job on the cluster, and where the run stands by its own directory."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from raymask.distributed.job_logs import exit_code, last_line
from raymask.distributed.jobs import Job, look_up
from raymask.standing import described, state_of

if TYPE_CHECKING:
    from raymask.distributed.jobs_client import JobsClient


def status(run: str, *, address: str | None) -> Iterator[str]:
    """What is known of a run, given by its name or folder, in lines. Raises ValueError where nothing is."""
    here, client, jobs, where = look_up(run, address=address)
    folder = here or Path(jobs[-1].folder)
    if client is not None and jobs:
        yield f"job   {about(jobs[-1])}"
    yield f"run   {folder}"
    yield from (f"      {line}" for line in _progress(folder, jobs, client, where=where))


def about(job: Job) -> str:
    """One line about a job: how it is, since when, and why it ended."""
    spent = tqdm.format_interval(max(0.0, (job.ended or time.time()) - job.begun))
    line = f"{job.id}  {job.status.lower()}, {spent}"
    if job.status == "FAILED":
        reasons = [text for text in job.message.splitlines() if text.strip()]
        line += f", exit code {exit_code(job)}" + (f": {reasons[-1].strip()}" if reasons else "")
    return line


def _progress(folder: Path, jobs: list[Job], client: JobsClient | None, *, where: str) -> list[str]:
    """Where the run stands; from the job's output where its directory cannot be seen from here."""
    active = bool(jobs) and jobs[-1].active
    state = state_of(folder)
    if folder.is_dir() or state != "stopped":
        # Its lock may be another machine's.
        return described(folder, "running" if active and state == "stopped" else state)
    if client is None or (active and jobs[-1].status == "PENDING"):
        return ["not begun yet"]
    line = last_line(client, jobs[-1], where=where, beginning="step ")
    return [line] if line else ["no line of metrics yet, and its directory cannot be seen from here"]
