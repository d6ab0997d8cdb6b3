"""One trial of a search whose run takes several workers: Ray Train inside the trial.

The trial's own process trains nothing. It starts the workers, reads along in the run directory, and tells
Tune what it finds there: an evaluation, once the checkpoint of its step is complete.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from raymask.config import Config
from raymask.distributed.account import evaluations
from raymask.distributed.assignment import Assignment
from raymask.distributed.launch import train_on_ray
from raymask.distributed.places import free_noted
from raymask.distributed.space import Values
from raymask.distributed.trial import prepare
from raymask.signals import ask_to_stop, asked_to_stop

_EVERY = 0.3  # seconds between two looks
_PATIENCE = 120  # seconds in which workers that were asked to stop must have done so


def run_trial_on_workers(name: str, values: Values, assignment: Assignment, *, heard: int) -> None:
    """As `run_trial`, with the workers that the config asks for."""
    free_noted(Path(assignment.folder) / name)  # Tune ends a trial that it pauses before its workers end
    config, account = prepare(name, values, assignment, heard=heard)
    folder, begun = config.run.folder(), time.monotonic()
    assert config.workers is not None
    train = _Training(config)
    train.start()
    try:
        for step, measured in _news(folder, train, heard=account.heard):
            seconds = (time.monotonic() - begun) * config.workers[1]
            account.tell(folder, measured, step=step, seconds=seconds)
    finally:  # Tune ends a trial by raising SystemExit in its report
        train.stop(folder)
    if train.error is not None:
        raise train.error


class _Training(threading.Thread):
    """Ray Train in a thread of its own."""

    def __init__(self, config: Config) -> None:
        super().__init__(daemon=True)
        self.config = config
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            train_on_ray(self.config)
        except BaseException as error:
            self.error = error

    def stop(self, folder: Path) -> None:
        """Ends the workers in good order, if they still work. Raises TimeoutError if they do not end."""
        until = time.monotonic() + _PATIENCE
        while self.is_alive() and time.monotonic() < until:
            if folder.exists():  # else they still start
                ask_to_stop(folder)
            self.join(1)
        if self.is_alive():
            raise TimeoutError(f"the workers of {folder} did not stop within {_PATIENCE} s of being asked")


def _news(folder: Path, train: threading.Thread, *, heard: int) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, what was measured) of each evaluation after step `heard`, once its checkpoint is complete.

    Ends where the search was asked to stop, too.
    """
    ended = False
    while not ended:
        ended = not train.is_alive() or asked_to_stop(folder.parent.parent)
        for step, measured in evaluations(folder, after=heard):
            yield step, measured
            heard = step
        time.sleep(0 if ended else _EVERY)
