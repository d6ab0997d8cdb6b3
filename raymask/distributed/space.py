"""Spaces: what a search may change. One question a file, in tune_spaces/ or anywhere on this machine.

A space is a Python file with
    a docstring             the question
    suggest(trial)          {dotted path of the config: value}, drawn by trial.suggest_float, suggest_int and
                            suggest_categorical; a value may be a dict, such as a schedule. What is drawn may
                            depend on what was drawn before: that is all there is to a conditional space
    PRESETS                 names of presets it is meant for
    METRIC                  optional: what to optimise, if not eval/knn20_top1
    AGAINST                 optional: a second objective to keep low
    MUTATIONS               optional: {dotted path of a schedule: (low, high)}, for pbt and pb2
    FIXED                   optional: {dotted path: value} that every trial has
"""

import runpy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from raymask import overrides
from raymask.config import Config, build
from raymask.distributed.spaces import names

Values = dict[str, Any]
METRIC = "eval/knn20_top1"


class Trial(Protocol):
    """Who draws: Optuna's trial, or one that walks over a grid."""

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number from low to high, both included."""

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number from low to high, both included."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True)
class Space:
    """A space that was read. text: the file, which is kept beside what was found with it."""

    name: str
    question: str
    suggest: Callable[[Trial], Values]
    presets: tuple[str, ...]
    metric: str
    against: str
    mutations: Mapping[str, tuple[float, float]]
    fixed: Values
    text: str

    def draw(self, trial: Trial) -> Values:
        """What `trial` draws. Raises ValueError where it is not {dotted path: plain value}."""
        try:
            values = self.suggest(trial)
        except Exception as error:
            raise ValueError(f"the space {self.name} cannot draw: {type(error).__name__}: {error}") from error
        if not isinstance(values, dict) or not values or not all(isinstance(key, str) for key in values):
            raise ValueError(
                f"suggest(trial) of the space {self.name} gave {values!r}: it must return {{'mask.ratio': "
                "value, ...}"
            )
        for path, value in values.items():
            _check_plain(value, path=path, space=self.name)
        return values


def open_space(source: str) -> Space:
    """The space of this name or path. Raises ValueError, in a sentence, where there is none or it is broken.

    A space is a program: its file is run, as any script that its user names.
    """
    if source in names():
        with_text = files("tune_spaces").joinpath(f"{source}.py")
        return _run(Path(str(with_text)), source)
    path = Path(source).expanduser()
    if path.suffix == ".py" and path.is_file():
        return _run(path, path.stem)
    near = get_close_matches(source, names(), n=1, cutoff=0.5)
    hint = f": did you mean '{near[0]}'?" if near else "."
    raise ValueError(
        f"unknown space '{source}'{hint} There are {', '.join(names())}; or give the path of a Python file "
        "with suggest(trial)"
    )


def _run(path: Path, name: str) -> Space:
    try:
        found = runpy.run_path(str(path), run_name=f"tune_spaces.{name}")
    except Exception as error:
        raise ValueError(f"the space {path} cannot be run: {type(error).__name__}: {error}") from error
    if not callable(found.get("suggest")):
        raise ValueError(f"the space {path} has no function suggest(trial), which draws the settings")
    return Space(
        name=name,
        question=(found.get("__doc__") or name).strip(),
        suggest=found["suggest"],
        presets=tuple(found.get("PRESETS", ())),
        metric=found.get("METRIC", METRIC),
        against=found.get("AGAINST", "none"),
        mutations=found.get("MUTATIONS", {}),
        fixed=found.get("FIXED", {}),
        text=path.read_text(),
    )


def configure(base: Mapping[str, Any], values: Values, *, space: str) -> Config:
    """The config that `values` over the tree `base` make. Raises ValueError naming the space."""
    nested: dict = {}
    for path, value in values.items():
        nested = _put(nested, path.split("."), value)
    try:
        return build(overrides.merge(dict(base), nested, model=Config))
    except ValueError as error:
        raise ValueError(f"the space {space} does not fit the config: {error}") from error


def _put(tree: dict, path: list[str], value: Any) -> dict:
    first, rest = path[0], path[1:]
    below = tree.get(first)
    return {**tree, first: _put(below if isinstance(below, dict) else {}, rest, value) if rest else value}


def _check_plain(value: Any, *, path: str, space: str) -> None:
    """Raises ValueError for what was not drawn: Ray's domains would reach a trial as they are."""
    if isinstance(value, Mapping):
        for key, below in value.items():
            _check_plain(below, path=f"{path}.{key}", space=space)
    elif isinstance(value, list | tuple):
        for below in value:
            _check_plain(below, path=path, space=space)
    elif not isinstance(value, bool | int | float | str | None):
        raise ValueError(
            f"the space {space} gives {path} as {type(value).__name__}, which is no plain value: draw it "
            "with trial.suggest_float, trial.suggest_int or trial.suggest_categorical"
        )
