"""Starting a run, or continuing one, with this process as its host."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from signal import SIGTERM

import torch

from pipelines.lock import lock
from raymask import checkpoint, run, state
from raymask.config import Config, change, read, to_tree, to_yaml
from raymask.context import LocalContext
from raymask.device import describe, pick_device, prepare
from raymask.fit import fit
from raymask.signals import Stopped, StopRequest
from raymask.training import Training, assemble
from raymask.world import World, any_across, barrier, from_environment, joined

LOCK = ".lock"  # in the run directory, held for as long as a process trains there


def train(config: Config) -> Path:
    """A new run in this process (or these, under torchrun); returns its directory.

    Raises ValueError, before anything is written, if the config and the data do not fit.
    """
    with _hosted(config) as (world, device, stop):
        training = assemble(config, world=world, device=device)
        folder = _create(training)
        with _alone(training, folder):
            try:
                _fit_here(training, folder, stop)
            except ValueError:
                if world.leads:
                    run.discard_if_untrained(folder)
                raise
    return folder


def resume(folder: Path, changes: list[str] | tuple[str, ...] = ()) -> Path:
    """Continues a run from its last checkpoint; `changes` may concern its pace and its reports only."""
    folder = folder.resolve()
    if not (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is no run directory: it holds no config.yaml")
    saved = read(folder / "config.yaml")
    config = change(saved, changes)
    state.refuse_another_config(to_tree(saved), to_tree(config), where=folder)
    with _hosted(config) as (world, device, stop):
        training = assemble(config, world=world, device=device)
        with _alone(training, folder):
            if world.leads:
                checkpoint.clean(folder / "checkpoints")
            barrier()
            _fit_here(training, folder, stop)
    return folder


def _fit_here(training: Training, folder: Path, stop: StopRequest) -> None:
    """Trains with this process as the host. Raises Stopped if it was asked to end before the end."""
    world, device, keep = training.world, training.device, training.config.train.keep
    if not fit(training, folder, LocalContext(folder, world=world, device=device, keep=keep, stop=stop)):
        number = stop.received or SIGTERM  # another rank may have been the one that was asked
        raise Stopped(f"stopped; continue with 'raymask resume {folder}'", exit_code=128 + number)


@contextmanager
def _alone(training: Training, folder: Path) -> Iterator[None]:
    """Keeps others from training in `folder`. Raises ValueError, on all ranks, where somebody does."""
    busy = f"another process trains in {folder}: wait for it to end, or stop it, before continuing the run"
    problem: ValueError | None = None
    with ExitStack() as held:
        if training.world.leads:
            try:
                lock(held.enter_context((folder / LOCK).open("ab")), busy=busy)
            except ValueError as error:
                problem = error
        if any_across(problem is not None, device=training.device):
            raise problem or ValueError(busy)
        yield


@contextmanager
def _hosted(config: Config) -> Iterator[tuple[World, torch.device, StopRequest]]:
    """This process as a rank of its world, with its device ready, listening for requests to stop."""
    world = from_environment()
    device = pick_device(world.local_rank)
    prepare(device, threads=1 if config.debug else None, detect_anomaly=config.debug)
    with joined(world, device=device), StopRequest() as stop:
        yield world, device, stop


def _create(training: Training) -> Path:
    """The run directory with what describes the run; all ranks learn whether the first one could make it."""
    config, world = training.config, training.world
    problem: ValueError | None = None
    if world.leads:
        try:
            folder = run.create(config.run)
            (folder / "config.yaml").write_text(to_yaml(config))
            run.write_json(folder / "env.json", run.environment(describe(training.device), world=world.size))
        except ValueError as error:
            problem = error
    if any_across(problem is not None, device=training.device):
        raise problem or ValueError("the first rank could not make the run directory")
    return config.run.folder()
