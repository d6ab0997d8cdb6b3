"""One trial of a search, on one device, inside the process that Tune gives it."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipelines.lock import lock
from raymask import checkpoint, metrics, run, state
from raymask.config import Config, change, to_tree, to_yaml
from raymask.context import LocalContext
from raymask.device import describe, pick_device, prepare
from raymask.distributed.counting import count
from raymask.distributed.lineage import History, as_schedules, extended
from raymask.distributed.space import Values, configure
from raymask.distributed.trial_context import NOTE, Pointer, TrialContext, read_pointer
from raymask.fit import fit
from raymask.train import LOCK
from raymask.training import Training, assemble
from raymask.world import World

_PATIENCE = 60  # seconds in which a process of before, whose driver was killed, must have gone


@dataclass(frozen=True)
class Assignment:
    """What every trial of a search is told.

    tree: the config that all start from; space: name of the space, for messages
    folder: the trials' directories; images: a trial's length; checks: its evaluations
    metric: what is optimised; counts: whether multiply-accumulates are counted, too
    keep_all: whether other trials may want every checkpoint; threads: of torch
    """

    tree: Mapping[str, Any]
    space: str
    folder: str
    images: int
    checks: int
    metric: str
    counts: bool
    keep_all: bool
    threads: int | None

    def config(self, name: str, values: Values) -> Config:
        """The complete config of a trial. Raises ValueError where values do not fit, or it is too short."""
        given = configure(self.tree, values, space=self.space)
        batch = given.train.global_batch
        every = self.images // batch // self.checks
        if every < 1:
            raise ValueError(
                f"{self.images} images are {self.images // batch} steps of train.global_batch={batch}, too "
                f"few for checks={self.checks} evaluations of a trial: give a larger budget, fewer trials or "
                "fewer checks"
            )
        return change(
            given,
            [
                f"run.name={name}",
                f"run.root={self.folder}",
                f"train.steps={every * self.checks}",
                f"train.checkpoint_images={every * batch}",
                # Once is at the end; more often includes the untrained start.
                f"evaluate.every_images={every * batch if self.checks > 1 else 'null'}",
                *([f"train.keep={self.checks + 1}"] if self.keep_all else []),
            ],
        )


def run_trial(name: str, values: Values, assignment: Assignment, *, moves: bool) -> None:
    """Trains a trial from its start, from where it was, or from where Tune says: another trial's checkpoint.

    moves: whether a population changes `values` on the way; the run's config then has them as schedules
    """
    folder = Path(assignment.folder) / name
    given = _given_pointer()
    donor = given if given is not None and given.trial != name else None
    start = _Start.of(folder, donor)
    if moves:
        # What held until the checkpoint, and from there on what is asked for now.
        history = extended(start.history, start.step, values)
        steps = assignment.config(name, values).train.steps
        assert steps is not None
        values = as_schedules(history, steps=steps)
    else:
        history = []
    config = assignment.config(name, values)
    device = pick_device()
    prepare(device, threads=assignment.threads)
    training = assemble(config, world=World(), device=device)
    with _alone(folder):
        _settle(folder, training, donor, moves=moves)
        local = LocalContext(folder, world=World(), device=device, keep=config.train.keep)
        context = TrialContext(
            local,
            trial=name,
            batch=training.plan.batch,
            metric=assignment.metric,
            values=values,
            history=history,
            seconds=start.seconds,
            costs=_counter(training) if assignment.counts else lambda step: {},
        )
        with _silent():
            fit(training, folder, context)
    del training
    if device.type == "cuda":
        torch.cuda.empty_cache()  # the process may serve another trial


def _counter(training: Training) -> Callable[[int], dict[str, float]]:
    """What the run has cost after so many steps."""
    cost, plan = count(training), training.plan
    return lambda step: cost.until(step / plan.steps, step * plan.batch)


@dataclass(frozen=True)
class _Start:
    """Where a trial continues. step: of the checkpoint; history, seconds: until there."""

    step: int
    history: History
    seconds: float

    @staticmethod
    def of(folder: Path, donor: Pointer | None) -> "_Start":
        own = _own_pointer(folder)
        if donor is not None:
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
    return Pointer(**entries | {"checkpoint": str(found), "step": state.describe(found)["step"]})


def _settle(folder: Path, training: Training, donor: Pointer | None, *, moves: bool) -> None:
    """Makes the run directory ready: new, as it was, or as a copy of the donor's run so far."""
    checkpoints = folder / "checkpoints"
    if donor is not None:
        _copy_run(Path(donor.checkpoint), folder, training.config)
    elif checkpoints.exists():
        checkpoint.clean(checkpoints)
        if moves:
            _rewrite_config(checkpoint.latest(checkpoints), training.config)
    (folder / "config.yaml").write_text(to_yaml(training.config))
    run.write_json(folder / "env.json", run.environment(describe(training.device), world=1))


def _copy_run(source: Path, folder: Path, config: Config) -> None:
    """Replaces the run in `folder` by the donor's up to its checkpoint `source`, under another config."""
    step = state.describe(source)["step"]
    for old in ("checkpoints", "eval"):
        shutil.rmtree(folder / old, ignore_errors=True)
    into = folder / "checkpoints" / source.name
    shutil.copytree(source, into, copy_function=_link)
    _rewrite_config(into, config)
    lines = folder / "metrics.jsonl"
    shutil.copyfile(source.parent.parent / "metrics.jsonl", lines)
    metrics.truncate(lines, step)


def _link(source: str, target: str) -> None:
    """A checkpoint is never written to again: a second name will do, on file systems that have such."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _rewrite_config(found: Path | None, config: Config) -> None:
    """Makes a checkpoint one of `config`: the past of a population's trial is written into its schedules."""
    if found is not None:
        described = state.describe(found) | {"config": to_tree(config)}
        run.write_json(found / "state.json", described)  # by renaming: a linked file stays what it was


@contextmanager
def _silent() -> Iterator[None]:
    """The run speaks to its train.log only: in the terminal of the driver there is a table."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps others from training in `folder`; waits a while for who still does."""
    folder.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + _PATIENCE
    with (folder / LOCK).open("ab") as held:
        while True:
            try:
                lock(held, busy=f"another process trains in {folder}")
                break
            except ValueError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(1)
        yield
