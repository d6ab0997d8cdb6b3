"""What runs in each worker of Ray Train: the local loop, hosted by Ray."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from raymask.config import build
from raymask.distributed.storage import refuse_blind
from raymask.distributed.train_context import TrainContext
from raymask.reason import first_line
from raymask.signals import Stopped
from raymask.train import train

_TIME = "%Y-%m-%d %H:%M:%S"  # as in train.log
_PATIENCE = 60.0  # seconds that a worker may take to die whose node was lost
_CONNECTION = ("Connection closed by peer", "Connection reset by peer", "NCCL", "gloo/transport")
_FATAL = ("Diverged", "OutOfMemoryError", "InductorError", "BackendCompilerFailed")


def work(given: dict[str, Any]) -> int:
    """Trains where the run directory says; returns 0 at the end of the run, or the code of its stop.

    Ray calls it again whenever workers were lost or their number changes.
    """
    if Path(given["directory"]).is_dir():
        os.chdir(given["directory"])  # relative paths mean what they meant to the user
    config = build(given["config"])
    if config.run.mirror is None:
        refuse_blind(given["marker"])
    try:
        host = partial(TrainContext, bell=given["bell"])
        train(config, host=host, patience=_PATIENCE)
    except Stopped as stopped:
        return stopped.exit_code
    return 0


class Watch(UserCallback):
    """Says which workers were lost, and ends a run whose error would come again: Ray would try for ever.

    log: where it is said, on the driver's machine, as this is
    failures: how often workers may be lost
    """

    def __init__(self, log: Path, *, failures: int) -> None:
        self.log = log
        self.failures = failures
        self.lost = 0

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray where the workers are watched; what is raised here ends the run."""
        for error in worker_exceptions.values():
            if isinstance(error, ValueError) or type(error).__name__ in _FATAL:
                raise error
        taken = any(getattr(_death(error), "preempted", False) for error in worker_exceptions.values())
        self.lost += not taken  # as Ray counts
        then = "all start again from the last checkpoint" if self.lost <= self.failures else "the run ends"
        count = (
            "" if taken else f" (time {self.lost} of the {self.failures} that cluster.max_failures allows)"
        )
        with self.log.open("a") as file:
            file.write(f"{time.strftime(_TIME)}  {described(worker_exceptions)}: {then}{count}\n")


def described(errors: dict[int, Exception]) -> str:
    """Which workers were lost and how: "worker 1 died (its process or its node is gone)"."""
    died = {rank: cause for rank, error in errors.items() if (cause := _death(error)) is not None}
    if not died:
        rank, error = min(errors.items())
        reason = first_line(error)
        if any(sign in str(error) for sign in _CONNECTION):
            return f"worker {rank} lost its connection to another (whose process or node may be gone)"
        return f"worker {rank} failed ({type(error).__name__}: {reason})"
    ranks = ", ".join(str(rank) for rank in sorted(died))
    taken = any(getattr(cause, "preempted", False) for cause in died.values())
    why = "its node was taken away" if taken else "its process or its node is gone"
    return f"worker{'s' if len(died) > 1 else ''} {ranks} died ({why})"


def _death(error: Exception) -> Exception | None:
    """What ended a worker's process, if that is what happened, and not an error in it."""
    from ray.exceptions import RayActorError

    inner = getattr(error, "health_check_failure", error)
    return inner if isinstance(inner, RayActorError) else None
