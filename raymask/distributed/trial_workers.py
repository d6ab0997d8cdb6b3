"""One trial of a search whose run takes several workers: Ray Train inside the trial.

The trial's own process trains nothing. It starts the workers, reads along in the run directory, and tells
Tune what it finds there: an evaluation, once the checkpoint of its step is complete.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from raymask import checkpoint, metrics, state
from raymask.config import Config
from raymask.distributed.assignment import Assignment
from raymask.distributed.launch import train_on_ray
from raymask.distributed.space import Values
from raymask.distributed.trial import prepare
from raymask.distributed.trial_context import told
from raymask.signals import Stopped, ask_to_stop

_EVERY = 0.3  # seconds between two looks
_PATIENCE = 120  # seconds in which workers that were asked to stop must have done so


def run_trial_on_workers(name: str, values: Values, assignment: Assignment) -> None:
    """As `run_trial`, with the workers that the config asks for."""
    config, account = prepare(name, values, assignment)
    folder, begun = config.run.folder(), time.monotonic()
    assert config.workers is not None
    train = _Training(config)
    train.start()
    try:
        for step, measured in _evaluations(folder, config, train):
            seconds = (time.monotonic() - begun) * config.workers[1]
            account.tell(folder / "checkpoints", measured, step=step, seconds=seconds)
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
        except Stopped:
            pass
        except BaseException as error:
            self.error = error

    def stop(self, folder: Path) -> None:
        """Ends the workers in good order, if they still work."""
        if self.is_alive() and folder.exists():
            ask_to_stop(folder)
        self.join(_PATIENCE)


def _evaluations(
    folder: Path, config: Config, train: threading.Thread
) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, what was measured) of each evaluation beyond the checkpoint that the run starts from."""
    known = _saved(folder)
    while True:
        ended = not train.is_alive()
        saved = _saved(folder)
        if saved > known:
            found: dict[int, dict[str, float]] = {}
            for line in metrics.read(folder / "metrics.jsonl"):
                found[line["step"]] = found.get(line["step"], {}) | told(line)
            for step in sorted(step for step in found if known < step <= saved):
                if any(name.startswith("eval/") for name in found[step]):
                    yield step, found[step]
            known = saved
        if ended:
            return
        time.sleep(_EVERY)


def _saved(folder: Path) -> int:
    """The step of the latest complete checkpoint, or 0."""
    found = checkpoint.latest(folder / "checkpoints")
    return state.describe(found)["step"] if found is not None else 0
