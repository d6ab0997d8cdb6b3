"""What a search found, to be trained again: as a command line, and as a YAML file like a preset."""

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from raymask.config import Config, load, to_tree
from raymask.schedules import Schedule
from raymask.schema import class_at, kind_of, members
from raymask.state import differences

FILE = "best.yaml"
_SCHEDULES = {kind_of(schedule) for schedule in members(Schedule)}
_PLACES = ("run.name", "run.root", "run.resume", "train.keep")  # of the trial, not of what it found


def preset_of(config: Config, *, preset: str, about: dict[str, str]) -> dict[str, Any]:
    """What differs from `preset`, as a tree that `raymask train FILE` reads: it trains the same run again."""
    tree: dict[str, Any] = {"about": about, "extends": absolute(preset)}
    for path, value in _changes(config, preset).items():
        *above, last = path.split(".")
        below = tree
        for key in above:
            below = below.setdefault(key, {})
        below[last] = value
    return tree


def command_of(config: Config, *, preset: str) -> str:
    """The command line that trains the same run again."""
    words = [f"{path}={_spelled(value)}" for path, value in _changes(config, preset).items()]
    return shlex.join(["raymask", "train", preset, *words])


def write_preset(path: Path, tree: dict[str, Any]) -> None:
    """Writes the tree as YAML."""
    path.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100))


def _changes(config: Config, preset: str) -> dict[str, Any]:
    """{path: value} of what differs from the preset; schedules are whole, and constants bare numbers."""
    base, now = to_tree(load(absolute(preset))), to_tree(config)
    found = {}
    for path in _differences(base, now):
        above, _, _ = path.rpartition(".")
        if above and _is_schedule(_at(now, above)):
            path = above
        value = _at(now, path)
        constant = _is_schedule(value) and value["kind"] == "constant"
        if path not in _PLACES:
            found[path] = value["value"] if constant else value
    return found


def _differences(base: dict, now: dict) -> list[str]:
    """The dotted keys that differ; a `kind` that is an ordinary choice (mask.kind) is a key like others."""
    found = []
    for path in differences(base, now):
        one, other = _at(base, path), _at(now, path)
        model = class_at(Config, now, path.split("."))
        if isinstance(one, dict) and isinstance(other, dict) and model is not None and kind_of(model) is None:
            found += [f"{path}.{key}" for key in other if one.get(key) != other[key]]
        else:
            found.append(path)
    return found


def _is_schedule(value: Any) -> bool:
    return isinstance(value, dict) and value.get("kind") in _SCHEDULES


def absolute(preset: str) -> str:
    """A preset by its name, or the absolute path of a YAML file."""
    path = Path(preset)
    return str(path.resolve()) if path.is_file() else preset


def _at(tree: dict, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def _spelled(value: Any) -> str:
    """As YAML on one line, which is what a command line takes; JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
