"""One trial of a search, inside the process that Tune gives it: an ordinary run that reports to Tune."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from raymask import checkpoint, state
from raymask.config import Config
from raymask.distributed.assignment import Assignment
from raymask.distributed.counting import count
from raymask.distributed.fork import copy_run, rewrite
from raymask.distributed.lineage import as_schedules, extended
from raymask.distributed.space import Values
from raymask.distributed.trial_context import NOTE, Account, Pointer, TrialContext, read_pointer
from raymask.train import train

PATIENCE = 60  # seconds in which a process of before, whose driver was killed, must have gone


def run_trial(name: str, values: Values, assignment: Assignment) -> None:
    """Trains a trial from its start, from where it was, or from another trial's checkpoint, as Tune says."""
    config, account = prepare(name, values, assignment)
    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    with _silent():
        train(config, host=lambda local: TrialContext(local, account), patience=PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the process may serve another trial


def prepare(name: str, values: Values, assignment: Assignment) -> tuple[Config, Account]:
    """The config of a trial, and what it has to account for; its directory is ready to go on from."""
    folder = Path(assignment.folder) / name
    given = _given_pointer()
    donor = given if given is not None and given.trial != name else None
    start = _start(folder, donor)
    history = []
    if assignment.moves:
        # What held until the checkpoint, and from there on what is asked for now.
        history = extended(start.history, start.step, values)
        steps = assignment.config(name, values).train.steps
        assert steps is not None
        values = as_schedules(history, steps=steps)
    config = assignment.config(name, values)
    if donor is not None:
        copy_run(Path(donor.checkpoint), folder)
    if assignment.moves:
        rewrite(folder, config)
    batch, costs = config.train.global_batch, _counter(config, assignment)
    account = Account(name, assignment.metric, values, history, start.seconds, batch, costs)
    again = config.run.model_copy(update={"resume": True})
    return config.model_copy(update={"run": again}), account


@dataclass(frozen=True)
class _Start:
    """Where a trial continues: the step, and what was before it."""

    step: int
    history: list
    seconds: float


def _start(folder: Path, donor: Pointer | None) -> _Start:
    own = _own_pointer(folder)
    if donor is not None:  # its past, but the time that this trial took
        return _Start(donor.step, donor.history, own.seconds if own else 0.0)
    return _Start(own.step, own.history, own.seconds) if own else _Start(0, [], 0.0)


def _given_pointer() -> Pointer | None:
    """What Tune says to continue from: the trial's own last checkpoint, or that of one it shall copy."""
    from ray import tune

    given = tune.get_checkpoint()
    if given is None:
        return None
    with given.as_directory() as folder:
        return read_pointer(Path(folder))


def _own_pointer(folder: Path) -> Pointer | None:
    """What the trial's own latest checkpoint says, if it wrote one."""
    found = checkpoint.latest(folder / "checkpoints")
    noted = folder / NOTE
    if found is None or not noted.exists():
        return None
    entries = json.loads(noted.read_text())
    # The note is written after its checkpoint: a kill between them leaves it one behind.
    return replace(Pointer(**entries), checkpoint=str(found), step=state.describe(found)["step"])


def _counter(config: Config, assignment: Assignment) -> Callable[[int], dict[str, float]]:
    """What the run has cost after so many steps, beside seconds."""
    if not assignment.counts:
        return lambda step: {}
    cost, steps, batch = count(config), config.train.steps, config.train.global_batch
    assert steps is not None
    return lambda step: cost.until(step / steps, step * batch)


@contextmanager
def _silent() -> Iterator[None]:
    """The run speaks to its train.log only: in the terminal of the driver there is a table."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield
