"""A run that goes on under other settings than it began with: a population's trial.

Its config says as schedules what held when, so that it stays an ordinary run, which its config trains again.
A trial that copies another becomes that one's run in one go. Its own past is set aside, since a third one may
just be copying it:

    trials/t003          the run, now a copy of another's
    trials/.left/t003-0  what it was before it was replaced for the first time
"""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from raymask import checkpoint, metrics, run, state
from raymask.config import Config, build, to_tree, to_yaml
from raymask.distributed.account import Pointer, note
from raymask.train import only_here

PATIENCE = 60  # seconds in which a process of before, whose driver was killed, must have gone
_LEFT = ".left"  # beside the runs of all trials
_COPY = ".copy_"


def rewrite(folder: Path, config: Config) -> None:
    """Makes the run in `folder`, if there is one, that of `config`: its file and its latest checkpoint.

    Raises ValueError where another process trains in it.
    """
    if checkpoint.latest(folder / "checkpoints") is not None:
        with only_here(folder, patience=PATIENCE):
            _rewrite(folder, config)


def copy_run(donor: Pointer, folder: Path, config: Config, *, known: Pointer) -> None:
    """Replaces the run in `folder` by the one that `donor` points to, as it was then, now of `config`.

    known: what shall be noted in it. A kill leaves the run of before, or the copy. Raises ValueError where
    another process trains in the folder.
    """
    beside = _beside(folder)
    with only_here(folder, patience=PATIENCE):
        _fill(beside, donor, attempts=3)
        for own in (*folder.glob("train.log"), *folder.glob("trackers*")):
            shutil.copyfile(own, beside / own.name)
        note(beside, known)
        _rewrite(beside, config)
        if folder.exists():
            past = folder.parent / _LEFT / f"{folder.name}-{turns(folder)}"
            past.parent.mkdir(exist_ok=True)
            folder.rename(past)
        beside.rename(folder)


def settle(folder: Path) -> None:
    """Ends what a kill interrupted in `copy_run`."""
    beside = _beside(folder)
    if folder.exists():
        shutil.rmtree(beside, ignore_errors=True)
    elif beside.exists():
        beside.rename(folder)


def turns(folder: Path) -> int:
    """How often the run in `folder` was replaced by another's."""
    return len(list((folder.parent / _LEFT).glob(f"{folder.name}-*")))


def folder_of(pointer: Pointer, *, beside: Path) -> Path:
    """Where the run lies that `pointer` means; `beside` is the run of another trial of the search."""
    now = beside.with_name(pointer.trial)
    return now if turns(now) == pointer.turn else now.parent / _LEFT / f"{pointer.trial}-{pointer.turn}"


def prune(runs: Iterable[Path], keep: int) -> None:
    """Removes all but the newest checkpoints of runs that have ended: nobody goes on from the others."""
    for run_folder in runs:
        shutil.rmtree(run_folder.parent / _LEFT, ignore_errors=True)
        shutil.rmtree(_beside(run_folder), ignore_errors=True)
        for old in checkpoint.steps(run_folder / "checkpoints")[:-keep]:
            shutil.rmtree(old)


def _beside(folder: Path) -> Path:
    return folder.with_name(f"{_COPY}{folder.name}")


def _rewrite(folder: Path, config: Config) -> None:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    described = state.describe(found)
    tree = state.with_found(to_tree(config), described["config"])
    # By renaming: a linked file stays what it was.
    run.write_json(found / "state.json", described | {"config": tree})
    written = folder / ".config.yaml"
    written.write_text(to_yaml(build(tree)))
    written.replace(folder / "config.yaml")


def _fill(folder: Path, donor: Pointer, *, attempts: int) -> None:
    """Makes `folder` a copy of the run that `donor` points to, as it was then."""
    shutil.rmtree(folder, ignore_errors=True)
    source = folder_of(donor, beside=folder)
    saved = Path("checkpoints", checkpoint.step_name(donor.step))
    try:
        shutil.copytree(source / saved, folder / saved, copy_function=_link)
        for kept in ("metrics.jsonl", "env.json"):
            shutil.copyfile(source / kept, folder / kept)
        if folder_of(donor, beside=folder) != source:
            raise FileNotFoundError(source)
    except (FileNotFoundError, shutil.Error):
        if attempts == 1:
            raise
        _fill(folder, donor, attempts=attempts - 1)  # it was set aside just now
    else:
        metrics.truncate(folder / "metrics.jsonl", donor.step)


def _link(source: str, target: str) -> None:
    """A checkpoint is never written to again: a second name will do, on file systems that have such."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)
