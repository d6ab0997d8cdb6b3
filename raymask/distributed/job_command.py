"""What a job runs: the user's own command line, checked here first, with every path made absolute.

A job's working directory is the unpacked package, which is deleted with it: a relative path would mean a
place there.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.paths import located

if TYPE_CHECKING:
    from raymask.config import Config

_PACKAGE = "a job's working directory is the unpacked package, which is deleted with it"
# Texts of a config that name files, by their last part; `data.train` and the like in full.
_DATA = ("data.train", "data.val")
_FILES = ("data.cache.folder",)
_FILES_ANYWHERE = ("weights",)


@dataclass(frozen=True)
class Command:
    """A command line for the cluster.

    name, folder: of the run; words: of the command; files: that the package must hold, relative to it
    address: cluster.address, as the user gave it
    """

    verb: str
    name: str
    folder: str
    words: tuple[str, ...]
    files: tuple[str, ...] = ()
    address: str | None = None

    @property
    def entrypoint(self) -> str:
        """The line that a shell on the cluster runs."""
        return shlex.join(self.words)


def command(verb: str, arguments: list[str], *, here: Path) -> Command:
    """The command of a job from what follows `raymask submit`. Raises ValueError before anything is sent."""
    if verb == "tune":
        from raymask.distributed.job_tune import tune_command

        return tune_command(arguments, here=here)
    if verb != "train":
        raise ValueError(
            f"'{verb}' is nothing that a job can do: raymask submit train ... or submit tune ..."
        )
    return train_command(arguments, here=here)


def train_command(arguments: list[str], *, here: Path) -> Command:
    """`raymask train PRESET KEY=VALUE...` as a job, which goes on where its run is if submitted again."""
    from raymask.config import load

    if not arguments or "=" in arguments[0]:
        raise ValueError(
            "say what to train, a preset ('raymask presets' lists them) or a YAML file: raymask submit train "
            "PRESET|CONFIG [KEY=VALUE]..."
        )
    source, *changes = arguments
    config = load(source, changes)
    name = str(config.run.name)
    if config.data.train is None:
        raise ValueError("data.train is not set: give the folder of images or shards that the cluster sees")
    root = shared_root(config.run.root, here=here)
    given = {
        **absolute_paths(config, here=here),
        "run.name": name,
        "run.root": root,
        "run.resume": True,
        "cluster.address": "auto",
    }
    if config.workers is None and not _names(changes, "workers"):
        given["workers"] = 1  # this process would be the head, which has no GPU
    source, files = config_file(source, here=here)
    kept = [item for item in changes if not replaced(item, given)]
    words = ["python", "-m", "raymask", "train", source, *kept, *settings(given)]
    return Command("train", name, f"{root}/{name}", tuple(words), files, config.cluster.address)


def shared_root(root: str, *, here: Path, key: str = "run.root") -> str:
    """Where runs are written, which must outlive the job. Raises ValueError for a relative path."""
    if _is_relative(root):
        raise ValueError(
            f"{key}={root} is relative, and {_PACKAGE}: give a directory that the cluster's nodes share, "
            f"such as {key}=/mnt/runs ({key}={here / root} where this machine is the cluster)"
        )
    return root.rstrip("/")


def absolute_paths(config: Config, *, here: Path) -> dict[str, str]:
    """The settings that name files by relative paths, absolute. Raises ValueError for what is not here."""
    return {
        dotted: _absolute(dotted, path, here=here)
        for dotted, path in paths(config.model_dump(mode="json"))
        if _is_relative(path)
    }


def paths(tree: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """The dotted keys of a config's tree that name files, with what they say."""
    for key, value in tree.items():
        dotted = ".".join((*above, key))
        if isinstance(value, dict):
            yield from paths(value, (*above, key))
        elif isinstance(value, str) and (dotted in _DATA + _FILES or key in _FILES_ANYWHERE):
            yield dotted, value


def _is_relative(path: str) -> bool:
    """Whether a path's meaning depends on the working directory; URLs, commands and ~ do not."""
    path = path.removeprefix("@")
    return not (path.startswith(("/", "~", "pipe:")) or "://" in path)


def _absolute(dotted: str, path: str, *, here: Path) -> str:
    found, there = located(path, here=here)
    if not there and dotted not in _FILES:
        raise ValueError(
            f"{dotted}={path} is relative, and there is no {found.removeprefix('@')}: {_PACKAGE}, so give "
            "the absolute path that the cluster's nodes see"
        )
    return found


def config_file(source: str, *, here: Path) -> tuple[str, tuple[str, ...]]:
    """A YAML file as the job will find it, and what the package must hold for that."""
    from raymask import presets

    path = Path(source)
    if source.removesuffix(presets.LAPTOP) in presets.names():
        return source, ()
    inside = (here / path).resolve()
    if inside.is_relative_to(here.resolve()):
        relative = str(inside.relative_to(here.resolve()))
        return relative, (relative,)
    if path.is_absolute():
        return source, ()
    raise ValueError(
        f"the config file {source} lies outside {here}, which is what a job gets: copy it there, or give the "
        "absolute path that the cluster's nodes see"
    )


def settings(given: dict[str, Any]) -> list[str]:
    """`key=value` items that are read as these values again."""
    from raymask.overrides import read_yaml

    items = []
    for key, value in given.items():
        text = value if isinstance(value, str) else json.dumps(value)
        same = text.startswith("@") or _reads_as(read_yaml, text, value)
        items.append(f"{key}={text if same else json.dumps(value)}")
    return items


def _reads_as(read: Any, text: str, value: Any) -> bool:
    try:
        return read(text, where="") == value
    except ValueError:
        return False


def _names(changes: list[str], key: str) -> bool:
    return any(item.partition("=")[0].strip() == key for item in changes)


def replaced(item: str, given: dict[str, Any]) -> bool:
    """Whether an item says what `given` says better; `data=PATH` is short for `data.train=PATH`."""
    key, _, text = item.partition("=")
    key = "data.train" if key.strip() == "data" and not text.lstrip().startswith("{") else key.strip()
    return key in given
