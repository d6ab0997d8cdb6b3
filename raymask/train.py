"""Starting a run, or continuing one, in this process, whoever hosts it."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM
from typing import IO

import torch

from pipelines.lock import lock
from raymask import checkpoint, run, state
from raymask.config import Config, build, change, read, to_tree, to_yaml
from raymask.context import Host, LocalContext, itself
from raymask.device import describe, pick_device, prepare
from raymask.disks import Disk, find_disk
from raymask.fit import fit
from raymask.mirror import Mirror, agree, mirror_of, refuse_taken
from raymask.signals import Stopped, StopRequest, forget_stop
from raymask.training import Training, assemble
from raymask.world import World, any_across, barrier, from_environment, joined, together


def train(config: Config, *, host: Host = itself, patience: float = 0) -> Path:
    """A new run in this process (or these, under torchrun); returns its directory.

    With run.resume=true a run of that name and config is continued, if there is one. `patience` is how many
    seconds another process may take to end that trains there. Raises ValueError, before anything is written,
    if the config and the data do not fit.
    """
    with _hosted(config) as process:
        if config.run.resume:
            _bring(config, process, patience)
        begun = process.world.leads and (config.run.folder() / "config.yaml").exists()
        if config.run.resume and any_across(begun, device=process.device):
            return _continue(continued(config.run.folder(), config), process, host, patience)
        training = assemble(config, world=process.world, device=process.device)
        folder = _create(training)
        with _alone(process, folder, patience):
            try:
                mirror = _claimed(config, process)
            except OSError:
                if process.disk.keeps:
                    run.discard_if_untrained(folder)
                raise
            try:
                _fit_here(training, folder, process, host, mirror)
            except ValueError:
                if process.disk.keeps:
                    run.discard_if_untrained(folder)
                if mirror is not None and training.world.leads:
                    mirror.discard_if_untrained()
                raise
    return folder


def resume(folder: Path, changes: list[str] | tuple[str, ...] = (), *, host: Host = itself) -> Path:
    """Continues a run from its last checkpoint; `changes` may concern its pace and its reports only."""
    config = changed(folder, changes)
    with _hosted(config) as process:
        _bring(config, process, 0)
        return _continue(config, process, host, 0)


def changed(folder: Path, changes: list[str] | tuple[str, ...]) -> Config:
    """The config of a run to be continued, with changes. Raises ValueError for those that it cannot have."""
    folder = folder.resolve()
    if not (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is no run directory: it holds no config.yaml")
    saved = read(folder / "config.yaml")
    config = change(saved, changes)
    state.refuse_another_config(to_tree(saved), to_tree(config), where=folder)
    # A run that was moved goes on where it is now.
    placed = config.run.model_copy(update={"root": str(folder.parent), "name": folder.name})
    return config.model_copy(update={"run": placed})


def continued(folder: Path, given: Config) -> Config:
    """The config of the run in `folder`, at the pace of `given`. Raises ValueError if that is another run.

    What a run finds out as it starts (auto, null) is as it was found then.
    """
    saved, now = to_tree(read(folder / "config.yaml")), to_tree(given)
    now = state.with_found(now, saved)
    state.refuse_another_config(saved, now, where=folder)
    return build(now)


def _bring(config: Config, process: "_Process", patience: float) -> None:
    """Makes the run on every machine's disk that of its mirror, if it has one, and nobody trains there."""
    mirror, folder = mirror_of(config.run), config.run.folder()
    if mirror is None:
        return
    for leads in (True, False):  # the others get what only the first one may have
        with together(device=process.device, otherwise="another machine cannot reach run.mirror"):
            if leads and process.world.leads:
                with only_here(folder, patience=patience):
                    agree(config.run)
            elif not leads and process.disk.keeps and not process.world.leads:
                with only_here(folder, patience=patience):
                    mirror.bring_run(folder)


@dataclass(frozen=True)
class _Process:
    """This process as a rank of its world, with its device ready, listening for requests to stop."""

    world: World
    device: torch.device
    disk: Disk
    stop: StopRequest


def _continue(config: Config, process: _Process, host: Host, patience: float) -> Path:
    """Continues the run that `config` names."""
    training, folder = assemble(config, world=process.world, device=process.device), config.run.folder()
    with _alone(process, folder, patience):
        mirror = _claimed(config, process)
        _clean(folder, process, mirror)
        _fit_here(training, folder, process, host, mirror)
    return folder


def _claimed(config: Config, process: _Process) -> Mirror | None:
    """The mirror of the run, if it has one, signed by the first rank."""
    mirror = mirror_of(config.run)
    with together(device=process.device, otherwise="another machine cannot reach run.mirror"):
        return mirror.claimed() if mirror is not None and process.world.leads else mirror


def _clean(folder: Path, process: _Process, mirror: Mirror | None) -> None:
    """Removes what processes that died left of checkpoints, on each disk and in the mirror."""
    with together(device=process.device, otherwise="another process cannot tidy up"):
        if process.disk.keeps:
            checkpoint.clean(folder / "checkpoints")
        if mirror is not None and process.world.leads:
            mirror.clean()


def _fit_here(training: Training, folder: Path, process: _Process, host: Host, mirror: Mirror | None) -> None:
    """Trains with this process and its host. Raises Stopped if it was asked to end before the end."""
    world, device, keep = training.world, training.device, training.config.train.keep
    if world.leads and host is itself:  # a cluster starts workers again that were asked to stop meanwhile
        forget_stop(folder)
    barrier()
    local = LocalContext(
        folder, world=world, device=device, keep=keep, stop=process.stop, disk=process.disk, mirror=mirror
    )
    try:
        ended = fit(training, folder, host(local))
    finally:
        local.writer.close()
    if ended:
        local.keep_last()
    if not ended:
        number = process.stop.received or SIGTERM  # another rank may have been the one that was asked
        raise Stopped(f"stopped; continue with 'raymask resume {folder}'", exit_code=128 + number)


@contextmanager
def _alone(process: _Process, folder: Path, patience: float) -> Iterator[None]:
    """Keeps others from training in `folder`, on each disk. Raises ValueError, on all ranks, if any do."""
    busy = _busy(folder)
    with ExitStack() as held:
        with together(device=process.device, otherwise=busy):
            if process.disk.keeps:
                folder.mkdir(parents=True, exist_ok=True)  # on a disk of its own there is none yet
                _lock(held.enter_context((folder / run.LOCK).open("ab")), busy=busy, patience=patience)
        yield


@contextmanager
def only_here(folder: Path, *, patience: float) -> Iterator[None]:
    """Keeps others from training in `folder`, if there is one, though this process does not either.

    Raises ValueError if another still trains there after `patience` seconds.
    """
    with ExitStack() as held:
        if folder.exists():
            _lock(held.enter_context((folder / run.LOCK).open("ab")), busy=_busy(folder), patience=patience)
        yield


def _busy(folder: Path) -> str:
    return f"another process trains in {folder}: wait for it to end, or stop it, before continuing the run"


def _lock(file: IO[bytes], *, busy: str, patience: float) -> None:
    """Locks a file, if need be once whoever holds it has died."""
    deadline = time.monotonic() + patience
    while True:
        try:
            return lock(file, busy=busy)
        except ValueError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


@contextmanager
def _hosted(config: Config) -> Iterator[_Process]:
    world = from_environment()
    device = pick_device(world.local_rank)
    prepare(device, threads=1 if config.debug else None, detect_anomaly=config.debug)
    root, mirrored = config.run.folder().parent, config.run.mirror is not None
    with joined(world, device=device), StopRequest() as stop:
        disk = find_disk(root, world=world, device=device, mirrored=mirrored)
        yield _Process(world, device, disk, stop)


def _create(training: Training) -> Path:
    """The run directory with what describes the run; all ranks learn whether the first one could make it."""
    config, world = training.config, training.world
    problem: ValueError | OSError | None = None
    folder: Path | None = None
    if world.leads:
        mirror = mirror_of(config.run)
        try:
            refuse_taken(config.run)
            folder = run.create(config.run)
            # Whoever trains by this file later wants a new run.
            afresh = config.model_copy(update={"run": config.run.model_copy(update={"resume": False})})
            (folder / "config.yaml").write_text(to_yaml(afresh))
            run.write_json(folder / "env.json", run.environment(describe(training.device), world=world.size))
            if mirror is not None:
                mirror.send_run(folder)  # so that every machine knows that the run has begun
        except (ValueError, OSError) as error:
            problem = error
            if folder is not None:
                run.discard_if_untrained(folder)
    if any_across(problem is not None, device=training.device):
        raise problem or ValueError("the first rank could not make the run directory")
    return config.run.folder()
