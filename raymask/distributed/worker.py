"""What runs in each worker of Ray Train: the local loop, hosted by Ray."""

import os
from pathlib import Path
from typing import Any

from ray.train import UserCallback

from raymask.config import build
from raymask.distributed.train_context import TrainContext
from raymask.signals import Stopped
from raymask.train import train

_PATIENCE = 60.0  # seconds that a worker may take to die whose node was lost
_FATAL = ("Diverged", "OutOfMemoryError", "InductorError", "BackendCompilerFailed")


def work(given: dict[str, Any]) -> int:
    """Trains where the run directory says; returns 0 at the end of the run, or the code of its stop.

    Ray calls it again whenever workers were lost or their number changes.
    """
    if Path(given["directory"]).is_dir():
        os.chdir(given["directory"])  # relative paths mean what they meant to the user
    try:
        train(build(given["config"]), host=TrainContext, patience=_PATIENCE)
    except Stopped as stopped:
        return stopped.exit_code
    return 0


class Watch(UserCallback):
    """Ends a run whose error would come again: Ray by itself would start the workers over and over."""

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        """Called by Ray where the workers are watched; what is raised here ends the run."""
        for error in worker_exceptions.values():
            if isinstance(error, ValueError) or type(error).__name__ in _FATAL:
                raise error
