"""The grid of a define-by-run space: every path through `suggest`, with so many values for each number."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from raymask.distributed.space import Space

Params = dict[str, Any]


@dataclass
class _Walk:
    """A trial that takes the choices of `path` and the first one beyond it, noting how many there were."""

    path: Sequence[int]
    points: int
    counts: list[int] = field(default_factory=list)
    params: Params = field(default_factory=dict)

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """One of `points` values from low to high, or of those that `step` allows."""
        if step is not None:
            many = round((high - low) / step) + 1
            return self._take(name, [low + step * i for i in _spread(many, self.points)])
        return self._take(name, _between(float(low), float(high), self.points, logarithmic=log))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """One of at most `points` whole numbers."""
        if log:
            return self._take(
                name, sorted({round(v) for v in _between(low, high, self.points, logarithmic=True)})
            )
        every = range(low, high + 1, step)
        return self._take(name, [every[i] for i in _spread(len(every), self.points)])

    def suggest_categorical(self, name: str, choices: Sequence) -> Any:
        """Each of the choices."""
        return self._take(name, list(choices))

    def _take(self, name: str, options: list) -> Any:
        if name in self.params:  # Optuna, too, draws a name once
            return self.params[name]
        place = len(self.counts)
        chosen = options[self.path[place] if place < len(self.path) else 0]
        self.counts.append(len(options))
        self.params[name] = chosen
        return chosen


def grid(space: Space, *, trials: int) -> list[Params]:
    """The draws of all points of the finest grid that `trials` hold. Raises ValueError for too many."""
    best: list[Params] = []
    for points in range(2, trials + 2):
        found = list(islice(_points(space, points), trials + 1))
        if len(found) > trials or len(found) == len(best):
            break
        best = found
    if not best:
        raise ValueError(
            f"the grid of the space {space.name} has more than {trials} points with two values for each "
            "number: give more trials, or choose search=optuna or search=random"
        )
    return best


def _points(space: Space, points: int) -> Iterator[Params]:
    """Counts through the choices like an odometer, whose wheels may differ from path to path."""
    path: list[int] = []
    while True:
        walk = _Walk(path, points)
        space.draw(walk)
        yield walk.params
        path = [*path, *[0] * (len(walk.counts) - len(path))][: len(walk.counts)]
        while path and path[-1] + 1 == walk.counts[len(path) - 1]:
            path.pop()
        if not path:
            return
        path[-1] += 1


def _between(low: float, high: float, points: int, *, logarithmic: bool) -> list[float]:
    shares = [i / (points - 1) for i in range(points)]
    if logarithmic:
        return [low * (high / low) ** share if share < 1 else high for share in shares]
    return [low + (high - low) * share if share < 1 else high for share in shares]


def _spread(many: int, points: int) -> list[int]:
    """`points` places among `many`, both ends included; all where there are fewer."""
    return sorted({round(i * (many - 1) / (points - 1)) for i in range(points)})
