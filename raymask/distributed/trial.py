"""One trial of a search, inside the process that Tune gives it: an ordinary run that reports to Tune."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path

import torch

from raymask.config import Config
from raymask.context import LocalContext
from raymask.distributed.account import Account, Pointer, noted, read_pointer
from raymask.distributed.assignment import Assignment
from raymask.distributed.counting import count
from raymask.distributed.fork import PATIENCE, copy_run, rewrite, settle, turns
from raymask.distributed.lineage import as_schedules, extended
from raymask.distributed.space import Values
from raymask.distributed.trial_context import TrialContext
from raymask.train import train


def run_trial(name: str, values: Values, assignment: Assignment, *, heard: int) -> None:
    """Trains a trial from its start, from where it was, or from another trial's checkpoint, as Tune says.

    heard: as in `prepare`
    """
    config, account = prepare(name, values, assignment, heard=heard)
    if assignment.threads is not None:
        torch.set_num_threads(assignment.threads)
    with _silent():
        train(config, host=lambda local: _host(local, account), patience=PATIENCE)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the process may serve another trial


def _host(local: LocalContext, account: Account) -> TrialContext:
    """The host of a trial; Tune hears first what a killed driver missed."""
    account.catch_up(local.run)
    return TrialContext(local, account)


def prepare(name: str, values: Values, assignment: Assignment, *, heard: int) -> tuple[Config, Account]:
    """The config of a trial, and what it has to account for; its directory is ready to go on from.

    heard: images of the trial until which the search knows what was measured, from before Tune began
    """
    folder = Path(assignment.folder) / name
    settle(folder)
    given, own = _given_pointer(), noted(folder)
    donor = given if given is not None and given.trial != name else None
    start = _start(name, own, donor)
    if assignment.moves:
        # What held until the checkpoint, and from there on what is asked for now.
        start = replace(start, history=extended(start.history, start.step, values))
        steps = assignment.config(name, values).train.steps
        assert steps is not None
        values = as_schedules(start.history, steps=steps)
    config = assignment.config(name, values)
    if donor is not None:
        start = replace(start, turn=turns(folder) + folder.exists())
        copy_run(donor, folder, config, known=start)
    elif assignment.moves:
        rewrite(folder, config)
    known = given.step if given is not None else heard // config.train.global_batch
    account = Account(
        name,
        assignment.metric,
        values,
        start.history,
        start.seconds,
        config.train.global_batch,
        _counter(config, assignment),
        turn=start.turn,
        heard=known,
    )
    again = config.run.model_copy(update={"resume": True})
    return config.model_copy(update={"run": again}), account


def _start(name: str, own: Pointer | None, donor: Pointer | None) -> Pointer:
    """Where a trial continues: the step, and what was before it."""
    start = own or Pointer(name, 0)
    if donor is not None:  # its past, but the time that this trial took
        return replace(start, step=donor.step, history=donor.history)
    return start


def _given_pointer() -> Pointer | None:
    """What Tune says to continue from: the trial's own last checkpoint, or that of one it shall copy."""
    from ray import tune

    given = tune.get_checkpoint()
    if given is None:
        return None
    with given.as_directory() as folder:
        return read_pointer(Path(folder))


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
