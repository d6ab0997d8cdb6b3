"""results.json of a search: every trial, what it was, what came out, and the best of them.

{"space", "question", "preset", "metric", "mode", "objectives": [{"name", "mode"}],
 "trials": [{"id", "values", "params", "metrics", "state", "seconds", "images", "folder", "curve", ...}],
 "best": id or null, "front": [id], "command": of the best}
docs/architecture.md describes it.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raymask.distributed.pareto import front
from raymask.run import write_json

FILE = "results.json"
_INTERVAL = 1.0  # seconds between two writes


@dataclass
class Record:
    """A trial. values: {path of the config: value}; params: what the space drew them from

    state: running, done, stopped (by the scheduler, before its end) or failed
    metrics: the last evaluation; curve: [images, metric] at each; seconds: of the device
    costs: what is counted beside the metric: flops, teacher_flops
    history: [[step, {path: value}], ...] where a population changed values on the way
    """

    id: str
    values: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)
    state: str = "running"
    metrics: dict[str, float] = field(default_factory=dict)
    costs: dict[str, float] = field(default_factory=dict)
    curve: list[list[float]] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0
    folder: str = ""
    history: list[list] = field(default_factory=list)
    error: str | None = None

    def add(self, result: Mapping[str, Any]) -> None:
        """What a trial reported; what it says of a past that it has left behind is dropped."""
        self.images, self.seconds = result["images"], result["seconds"]
        self.values, self.history = result["values"], result["history"]
        self.metrics, self.costs = dict(result["measured"]), dict(result.get("costs", {}))
        self.curve = [point for point in self.curve if point[0] < self.images]
        self.curve.append([self.images, result["metric"]])


@dataclass
class Results:
    """All trials of a search in `folder`, in the order in which they began.

    about: space, question, preset, metric, mode; objectives: (name, mode), the metric first
    """

    folder: Path
    about: dict[str, Any]
    objectives: list[tuple[str, str]]
    records: dict[str, Record] = field(default_factory=dict)
    command: str | None = None
    written: float = 0.0

    def scores(self, record: Record) -> tuple[float, ...] | None:
        """What a trial reached in each objective; None before its first evaluation."""
        if not record.curve:
            return None
        beside = {"seconds": record.seconds, **record.costs}
        return (record.curve[-1][1], *(beside[name] for name, _ in self.objectives[1:]))

    def best(self) -> Record | None:
        """The trial with the best metric among those that came to their end, or else among all.

        Where several have it, the one that is best in the next objective: so it stands on the front.
        """
        return min(self._judged(), key=self._order, default=None)

    def front(self) -> list[Record]:
        """The trials that no other beats in one objective without losing in another, best metric first."""
        judged = self._judged()
        points = [self.scores(record) or () for record in judged]
        kept = [judged[place] for place in front(points, [mode for _, mode in self.objectives])]
        return sorted(kept, key=self._order)

    def _order(self, record: Record) -> tuple[float, ...]:
        """The better a trial, the less, objective by objective."""
        signs = [-1 if mode == "max" else 1 for _, mode in self.objectives]
        return tuple(sign * score for sign, score in zip(signs, self.scores(record) or ()))

    def _judged(self) -> list[Record]:
        measured = [record for record in self.records.values() if record.curve]
        return [record for record in measured if record.state == "done"] or measured

    def write(self, *, now: bool = True) -> None:
        """Writes results.json; without `now` only if that is a while ago."""
        if not now and time.monotonic() - self.written < _INTERVAL:
            return
        best = self.best()
        tree = {
            **self.about,
            "objectives": [{"name": name, "mode": mode} for name, mode in self.objectives],
            "trials": [asdict(record) for record in self.records.values()],
            "best": best.id if best else None,
            "front": [record.id for record in self.front()],
            "command": self.command,
        }
        write_json(self.folder / FILE, tree)
        self.written = time.monotonic()

    def recall(self) -> None:
        """Reads the trials that an earlier process wrote."""
        path = self.folder / FILE
        for entry in json.loads(path.read_text())["trials"] if path.exists() else []:
            self.records[entry["id"]] = Record(**entry)
