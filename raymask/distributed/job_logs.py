"""Following a job: what it prints as it prints it, and in the end its exit code."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from raymask.distributed.dashboard import answers
from raymask.distributed.jobs import Job, wait

if TYPE_CHECKING:
    from raymask.distributed.jobs_client import JobsClient

PATIENCE = 60  # seconds for which the cluster may be out of reach before the job is left to itself
_STOPPED = 143  # 128 + SIGTERM, as a shell reports it


def follow(client: JobsClient, job: Job, *, where: str, show: Callable[[str], None]) -> Job:
    """Shows what the job prints until it ends, over broken connections; gives the ended job.

    Raises ConnectionError where the cluster stays out of reach: the job may go on.
    """
    shown, lost_since = 0, None
    while True:
        before = shown
        try:
            shown = asyncio.run(_tail(client, job, shown=shown, show=show))
            return wait(client, job, where=where, seconds=PATIENCE)
        except _Broken as broken:
            shown = broken.shown
        except (ConnectionError, TimeoutError, ValueError):
            pass  # asked again below, within PATIENCE
        lost_since = time.monotonic() if lost_since is None or shown > before else lost_since
        if time.monotonic() - lost_since > PATIENCE:
            raise ConnectionError(
                f"the cluster at {where} has been out of reach for {PATIENCE} seconds; the job may go on: "
                f"see 'raymask status {job.run}'"
            )
        time.sleep(1)


class _Broken(Exception):
    """The connection ended before the job did; `shown` characters had come."""

    def __init__(self, shown: int) -> None:
        super().__init__()
        self.shown = shown


async def _tail(client: JobsClient, job: Job, *, shown: int, show: Callable[[str], None]) -> int:
    """Shows the job's output from character `shown` on; gives how many there are when it ends."""
    import aiohttp

    come = 0
    try:
        async for text in client.tail_job_logs(job.id):
            fresh = text[max(0, shown - come) :]
            come += len(text)
            if fresh:
                show(fresh)
    except (RuntimeError, OSError, aiohttp.ClientError) as error:
        raise _Broken(max(shown, come)) from error
    return max(shown, come)


def exit_code(job: Job) -> int:
    """What a shell would report of the job's command: its own code, 128 + the number of its signal."""
    if job.status == "SUCCEEDED":
        return 0
    if job.status == "STOPPED":
        return _STOPPED
    if job.exit_code is None or job.exit_code == 0:
        return 1
    return job.exit_code if job.exit_code > 0 else 128 - job.exit_code


def last_line(client: JobsClient, job: Job, *, where: str, beginning: str = "") -> str | None:
    """The last line that the job printed, of those that begin so; None if there is none."""
    with answers(where):
        lines = client.get_job_logs(job.id).splitlines()
    return next((line for line in reversed(lines) if line.strip() and line.startswith(beginning)), None)
