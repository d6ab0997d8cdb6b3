"""Checkpoint directories: written beside and renamed, so that a directory named step_* is always complete.

    checkpoints/step_00000100/   model.safetensors  optimiser.safetensors  running.safetensors  state.json
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
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step_{step:08d}"
    beside = folder / f"{_WRITING}{final.name}"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        save(beside)
        for file in sorted(beside.iterdir()):
            _sync(file)
        _sync(beside)
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)  # a full disk leaves nothing half-written
        raise
    _remove(final)  # of a future that a resumed run left behind
    beside.rename(final)
    _sync(folder)
    _point(folder, final.name)
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


def _point(folder: Path, name: str) -> None:
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
