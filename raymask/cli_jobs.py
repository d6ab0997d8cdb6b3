"""The verbs that send runs elsewhere, look where they are, and end them."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from raymask.cli_kinds import Address


def submit(
    verb: Annotated[str, typer.Argument(metavar="train|tune", help="what the job does", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGUMENT]...", help="as after train or tune", show_default=False),
    ] = None,
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="leave the job to itself")] = False,
) -> None:
    """Run train or tune as a job of a Ray cluster, and follow it."""
    from raymask.distributed.jobs import submit

    where, client, job = submit(verb, arguments or [], address=address, say=say, here=Path.cwd())
    later = f"'raymask status {job.run}' and 'raymask stop {job.run}'"
    if detach:
        say(f"the job goes on by itself: see {later}")
        return
    from raymask.distributed.job_logs import exit_code, follow
    from raymask.distributed.job_status import about
    from raymask.signals import Stopped

    try:
        ended = follow(client, job, where=where, show=lambda text: print(text, end="", flush=True))
    except (KeyboardInterrupt, SystemExit) as asked:  # by Ctrl-C, or by SIGTERM
        code = 130 if isinstance(asked, KeyboardInterrupt) else 143
        raise Stopped(f"no longer following {job.id}, which goes on: see {later}", exit_code=code) from None
    say(about(ended))
    raise typer.Exit(exit_code(ended))


def status(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="directory, name in runs/, or name of a job", show_default=False),
    ],
    address: Address = None,
) -> None:
    """Say whether a run or search runs, has stopped or is finished, how far it is, and what comes next."""
    from raymask.distributed.job_status import status

    for line in status(run, address=address):
        print(line)


def stop(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="directory, name in runs/, or name of a job", show_default=False),
    ],
    address: Address = None,
) -> None:
    """End a run, search or job after a checkpoint, and wait for that: raymask stop runs/a."""
    from raymask.distributed.job_status import about
    from raymask.distributed.jobs import stop

    ended = stop(run, address=address, say=say)
    if ended is not None:
        say(about(ended))
        say("submit the same command again to go on from there")


def say(text: str) -> None:
    """A remark beside what a verb prints."""
    print(f"raymask: {text}", file=sys.stderr, flush=True)
