"""What a search directory says: its trials, what they were judged by, and the schedules that they tried."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from raymask import metrics
from raymask.progress import Progress
from raymask.schedules import Schedule

FILE = "results.json"
_SCHEDULE: TypeAdapter[Any] = TypeAdapter(Schedule)
SHARES = [step / 100 for step in range(101)]  # of the training, at which schedules are drawn


@dataclass(frozen=True)
class Tried:
    """A trial.

    params: what was drawn for it; values: what that made of its config, {dotted path: value}
    curve: [images, metric] of each evaluation; history: [step, {path: value}] where values changed on the way
    folder: its run directory; seconds: of the device
    """

    id: str
    values: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    history: list[list] = field(default_factory=list)
    state: str = ""
    seconds: float = 0.0
    images: int = 0
    folder: Path = Path()
    error: str | None = None

    @property
    def drawn(self) -> dict[str, Any]:
        """Its coordinates: what was drawn, or the leaves of its values where a population made them up."""
        return self.params or dict(_leaves(self.values))

    def objective(self, name: str) -> float | None:
        """What it reached in an objective; None where nothing was measured."""
        found = {"seconds": self.seconds, **self.costs, **self.metrics}.get(name)
        return found if found is not None and isfinite(found) else None

    @cached_property
    def lines(self) -> list[dict]:
        """Its own lines of metrics.jsonl; none where its run directory is gone."""
        return list(metrics.read(self.folder / "metrics.jsonl"))

    def line(self, name: str) -> list[tuple[float, float]]:
        """A measure over images, by its own lines."""
        return [(line["images"], line[name]) for line in self.lines if line.get(name) is not None]

    @cached_property
    def steps(self) -> int:
        """The steps of its whole run by its own lines; its last change where they are gone."""
        lines = [line for line in self.lines if line.get("progress")]
        last = max((step for step, _ in self.history), default=0)
        return max(1, last, round(lines[-1]["step"] / lines[-1]["progress"]) if lines else 0)

    @cached_property
    def schedules(self) -> dict[str, list[float]]:
        """By dotted path: the values of each of its schedules along the training, at SHARES."""
        progress = [Progress(step, len(SHARES) - 1, len(SHARES)) for step in range(len(SHARES))]
        planned = {path: [at(here) for here in progress] for path, at in _schedules(self.values)}
        changed = {path for _, change in self.history for path in change}
        return planned | {path: self._staircase(path) for path in changed}

    def _staircase(self, path: str) -> list[float]:
        """What a population did with a value: from each change on, the new one."""
        changes = [(step, change[path]) for step, change in self.history if path in change]
        first = changes[0][1]
        return [
            next((value for step, value in reversed(changes) if step <= share * self.steps), first)
            for share in SHARES
        ]


@dataclass(frozen=True)
class Searched:
    """A search as it lies on the disk; trials in the order in which they began."""

    folder: Path
    tree: dict[str, Any]
    trials: list[Tried]

    @property
    def metric(self) -> str:
        """What was optimised."""
        return self.tree["metric"]

    @property
    def objectives(self) -> list[tuple[str, str]]:
        """Names, and max or min; the metric first."""
        given = self.tree.get("objectives") or [{"name": self.metric, "mode": self.tree["mode"]}]
        return [(each["name"], each["mode"]) for each in given]

    @property
    def ranked(self) -> list[Tried]:
        """The trials that were measured, the best first."""
        sign = -1 if self.tree["mode"] == "max" else 1
        measured = [(trial.objective(self.metric), trial) for trial in self.trials]
        return [
            trial
            for value, trial in sorted(
                ((sign * value, trial) for value, trial in measured if value is not None),
                key=lambda pair: pair[0],
            )
        ]

    @property
    def best(self) -> Tried | None:
        """The best trial, as the search judged."""
        return next((trial for trial in self.trials if trial.id == self.tree.get("best")), None)

    @property
    def paths(self) -> list[str]:
        """The paths at which some trial had a schedule that moves, or values that changed on the way."""
        moving = {
            path for trial in self.trials for path, curve in trial.schedules.items() if len(set(curve)) > 1
        }
        return sorted(moving)


def read_search(folder: Path | str) -> Searched:
    """The search in a folder. Raises ValueError where its results cannot be read."""
    folder = Path(folder)
    try:
        tree = json.loads((folder / FILE).read_text())
        known = set(Tried.__dataclass_fields__)
        given = [{name: value for name, value in entry.items() if name in known} for entry in tree["trials"]]
        trials = [Tried(**{**entry, "folder": folder / entry.get("folder", "")}) for entry in given]
        return Searched(folder, {**tree, "metric": tree["metric"], "mode": tree["mode"]}, trials)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder / FILE} is no record of a search: {error!r}") from error


def _leaves(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        elif not isinstance(value, list):
            yield f"{before}{key}", value


def _schedules(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The schedules among values; numbers, too, which are constant ones where others move."""
    for key, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int | float | Mapping):
            continue
        try:
            yield f"{before}{key}", _SCHEDULE.validate_python(value)
        except ValidationError:
            if isinstance(value, Mapping):
                yield from _schedules(value, f"{before}{key}.")
