"""What a search found, to be trained again: as a command line, and as a YAML file like a preset."""

import json
import shlex
from pathlib import Path
from typing import Any

import yaml

from raymask.config import Config, load, to_tree
from raymask.state import differences

FILE = "best.yaml"
_PLACES = ("run.name", "run.root", "run.resume", "train.keep")  # of the trial, not of what it found


def preset_of(config: Config, *, preset: str, about: dict[str, str]) -> dict[str, Any]:
    """What differs from `preset`, as a tree that `raymask train FILE` reads: it trains the same run again."""
    base, now = to_tree(load(_absolute(preset))), to_tree(config)
    tree: dict[str, Any] = {"about": about, "extends": _absolute(preset)}
    for path in differences(base, now):
        if path not in _PLACES:
            *above, last = path.split(".")
            below = tree
            for key in above:
                below = below.setdefault(key, {})
            below[last] = _at(now, path)
    return tree


def command_of(config: Config, *, preset: str) -> str:
    """The command line that trains the same run again."""
    base, now = to_tree(load(_absolute(preset))), to_tree(config)
    paths = [path for path in differences(base, now) if path not in _PLACES]
    words = [f"{path}={_spelled(_at(now, path))}" for path in paths]
    return shlex.join(["raymask", "train", preset, *words])


def write_preset(path: Path, tree: dict[str, Any]) -> None:
    """Writes the tree as YAML."""
    path.write_text(yaml.safe_dump(tree, sort_keys=False, default_flow_style=None, width=100))


def _absolute(preset: str) -> str:
    path = Path(preset)
    return str(path.resolve()) if path.is_file() else preset


def _at(tree: dict, path: str) -> Any:
    for key in path.split("."):
        tree = tree[key]
    return tree


def _spelled(value: Any) -> str:
    """As YAML on one line, which is what a command line takes; JSON is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
