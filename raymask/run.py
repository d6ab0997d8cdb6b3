"""The run directory: made once, never overwritten, and what is written into it before the first step."""

import json
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import field_validator

from pipelines.remote.urls import has_secrets, is_remote, public
from pipelines.settings import Settings

_PACKAGES = (
    "raymask",
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "numba",
    "safetensors",
    "pydantic",
    "webdataset",
)


LOCK = ".lock"  # in the run directory, held for as long as a process trains there


class Run(Settings):
    """Where a run is written, and the seed of all its randomness.

    name: of the run's directory; null takes that of the preset or config file, for a search's best.yaml
        SEARCH-best
    root: directory that holds the runs
    mirror: URL of a folder in a bucket, such as s3://bucket/runs, to which the run directory is copied with
        every checkpoint and from which it is continued; for machines without a common or a lasting disk
    resume: whether a run of that name and config is continued where there is one, instead of refused: for
        whatever may be started twice, such as a job
    """

    name: str | None = None
    root: str = "runs"
    mirror: str | None = None
    resume: bool = False
    seed: int = 0

    @field_validator("name")
    @classmethod
    def _is_one_folder(cls, name: str | None) -> str | None:
        if name is not None and (name in ("", ".", "..") or "/" in name or "\\" in name):
            raise ValueError(f"run.name is {name!r}, which is no name of a folder: say where by run.root=DIR")
        return name

    @field_validator("mirror")
    @classmethod
    def _is_a_plain_url(cls, mirror: str | None) -> str | None:
        if mirror is not None and (not is_remote(mirror) or has_secrets(mirror)):
            raise ValueError(
                f"run.mirror is {public(mirror)!r}: give the URL of a folder, without a password in it, such "
                "as s3://bucket/runs"
            )
        return mirror

    def folder(self) -> Path:
        """The run directory, as an absolute path."""
        assert self.name, "a loaded config has a run name"
        return (Path(self.root).expanduser() / self.name).resolve()


def create(run: Run) -> Path:
    """The new run directory. Raises ValueError where there is one already, or where it cannot be made."""
    folder = run.folder()
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise ValueError(_exists(folder)) from error
    except OSError as error:
        raise ValueError(
            f"the run directory {folder} cannot be made ({error.strerror}): set run.root=DIR"
        ) from error
    return folder


def refuse_existing(folder: Path) -> None:
    """Raises ValueError where there is a run already."""
    if folder.exists():
        raise ValueError(_exists(folder))


def _exists(folder: Path) -> str:
    return (
        f"the run directory {folder} exists and is never overwritten: continue it with "
        f"'raymask resume {folder}', or name another with run.name=NAME"
    )


def discard_if_untrained(folder: Path) -> None:
    """Removes a run directory in which nothing was learned, so that a refused start leaves nothing behind.

    What names unreadable images stays: the refusal may have been about them.
    """
    kept = ("metrics.jsonl", "bad_samples*.jsonl", "checkpoints")
    if not any(list(folder.glob(name)) for name in kept):
        shutil.rmtree(folder, ignore_errors=True)


def environment(device: str, *, world: int) -> dict:
    """What a run ran on: versions, device, git state of the working directory, command."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": versions(),
        "device": device,
        "world": world,
        "command": sys.argv,
        "git": _git(),
    }


def versions() -> dict[str, str | None]:
    """The versions of what a run depends on."""
    return {name: _version(name) for name in _PACKAGES}


def write_json(path: Path, value: object) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(json.dumps(value, indent=2) + "\n")
    beside.replace(path)


def _version(name: str) -> str | None:
    """The version of a package; what is imported knows its build (+cpu, +cu130) as well."""
    imported = getattr(sys.modules.get(name), "__version__", None)
    if imported is not None:
        return str(imported)
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git() -> dict[str, str | bool] | None:
    """Commit of the working directory and whether files were changed; None outside a repository."""
    try:
        commit = _output("git", "rev-parse", "HEAD").strip()
        return {"commit": commit, "changed": bool(_output("git", "status", "--porcelain").strip())}
    except (OSError, subprocess.SubprocessError):
        return None


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
