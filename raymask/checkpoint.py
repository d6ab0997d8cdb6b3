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
    shutil.rmtree(final, ignore_errors=True)  # of a future that a resumed run left behind
    beside.rename(final)
    _sync(folder)
    _point(folder, final.name)
    for old in steps(folder)[:-keep]:
        if old != final:
            shutil.rmtree(old)
    return final


def steps(folder: Path) -> list[Path]:
    """The complete checkpoints in `folder`, oldest first."""
    return sorted(folder.glob("step_*"))


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
    """Removes what a killed process left: half-written checkpoints, and complete ones newer than `last`."""
    current = latest(folder)
    newer = [path for path in steps(folder) if current is not None and path.name > current.name]
    gone = [*folder.glob(f"{_WRITING}*"), *folder.glob(f".{LAST}*"), *newer]
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return [path.name for path in gone]


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
