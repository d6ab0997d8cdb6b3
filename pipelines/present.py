"""Whether data are there at all, asked before anything is started: cheap, and no shard is opened."""

import os
from pathlib import Path

from pipelines.data import NOT_SET, Data
from pipelines.paths import expand
from pipelines.pipe import PIPE
from pipelines.remote.opening import check_remote
from pipelines.remote.urls import is_remote


def check_present(data: Data) -> None:
    """Raises ValueError for a path of `data` that is not set, not there, or may not be read.

    Of files behind URLs only the first is asked for, and commands are not run.
    """
    if data.train is None:
        raise ValueError(NOT_SET)
    for key in ("train", "val"):
        path = getattr(data, key)
        if path is None or path.startswith(PIPE):
            continue
        files = expand(path, cache=data.cache, allow_pipe=data.allow_pipe)
        for name in files:
            if not is_remote(name):
                check_readable(Path(name), key=f"data.{key}")
        for name in [name for name in files if is_remote(name)][:1]:
            check_remote(name, seconds=data.cache.opening)


def check_readable(path: Path, *, key: str) -> None:
    """Raises ValueError for a path that the setting `key` names, if it is not there or may not be read."""
    if not path.exists():
        raise ValueError(f"{key}={path}: the path does not exist")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise ValueError(f"{key}={path} may not be read by this user")
    if path.is_dir() and not any(path.iterdir()):
        raise ValueError(f"{key}={path} is empty: check the path")
