"""Checkpoint directories: written beside and renamed, so that a directory named step_* is always complete.

    checkpoints/step_00000100/   model.safetensors  optimiser.safetensors  running.safetensors  state.json
                                 (the first two as shards/ where several ranks each wrote a share)
    checkpoints/last             the name of the newest one, replaced in one go

Whatever is killed whenever, `last` names a complete checkpoint or does not exist. Nothing here is pickled.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

_WRITING = ".writing_"
_REMOVING = ".removing_"
LAST = "last"


def write(folder: Path, step: int, *, save: Callable[[Path], None], keep: int) -> Path:
    """The new checkpoint of `step` in `folder`, filled by `save`; then removes all but the `keep` newest."""
    return fill(begin(folder, step), save=save, keep=keep)


def begin(folder: Path, step: int) -> Path:
    """An empty directory for the checkpoint of `step`, which is none until it is filled."""
    return begin_named(folder, step_name(step))


def begin_named(folder: Path, name: str) -> Path:
    """The same for the checkpoint of that name."""
    beside = folder / f"{_WRITING}{name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    return beside


def writing(folder: Path, step: int) -> Path:
    """Where the checkpoint of `step` is written."""
    return folder / f"{_WRITING}{step_name(step)}"


def step_name(step: int) -> str:
    """The name of a complete checkpoint of `step`."""
    return f"step_{step:08d}"


def name_of(beside: Path) -> str:
    """The name that a directory that was begun will have."""
    return beside.name.removeprefix(_WRITING)


def fill(beside: Path, *, save: Callable[[Path], None], keep: int) -> Path:
    """Makes a checkpoint of a directory that was begun; then removes all but the `keep` newest."""
    try:
        save(beside)
        return _commit(beside, keep)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # a full disk leaves nothing half-written
        raise


def _commit(beside: Path, keep: int) -> Path:
    for path in sorted(beside.iterdir()):
        _sync(path)
    _sync(beside)
    folder, final = beside.parent, beside.with_name(name_of(beside))
    _remove(final)  # of a future that a resumed run left behind
    beside.rename(final)
    _sync(folder)
    point(folder, final.name)
    for old in steps(folder)[:-keep]:
        if old != final:
            _remove(old)
    return final


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    return sorted(path for path in folder.glob("step_*") if (path / "state.json").exists())


def latest(folder: Path) -> Path | None:
    """The checkpoint that `last` names, or the newest complete one, or None where there is none."""
    pointer = folder / LAST
    if pointer.exists():
        named = folder / pointer.read_text().strip()
        if named.name.startswith("step_") and (named / "state.json").exists():
            return named
    found = steps(folder)
    return found[-1] if found else None


def clean(folder: Path) -> list[str]:
    """Removes what a killed process left: half of checkpoints, and complete ones newer than `last`."""
    current, complete = latest(folder), steps(folder)
    gone = [
        path
        for path in sorted(folder.glob("step_*"))
        if path not in complete or (current is not None and path.name > current.name)
    ]
    for path in gone:
        _remove(path)
    rests = [path for name in (_WRITING, _REMOVING, f".{LAST}") for path in folder.glob(f"{name}*")]
    for path in rests:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [path.name for path in (*gone, *rests)]


def _remove(checkpoint: Path) -> None:
    """Removes a checkpoint, if it is there, under another name: a kill must not leave half of a step_*."""
    beside = checkpoint.with_name(f"{_REMOVING}{checkpoint.name}")
    shutil.rmtree(beside, ignore_errors=True)
    if checkpoint.exists():
        checkpoint.rename(beside)
        shutil.rmtree(beside)


def point(folder: Path, name: str) -> None:
    """Makes `last` name this checkpoint."""
    beside = folder / f".{LAST}"
    beside.write_text(name + "\n")
    _sync(beside)
    beside.replace(folder / LAST)
    _sync(folder)


def _sync(path: Path) -> None:
    """Waits until a file or directory is on the disk, so that a rename never outruns its content."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
