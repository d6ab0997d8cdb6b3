"""The page of a search: what was tried, what it led to, and how to run the best trial again."""

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np

from raymask import __version__
from raymask.distributed.pareto import front
from raymask.report.chart import Chart, Line, number_text
from raymask.report.coordinates import coordinates
from raymask.report.pages import templates, write_page
from raymask.report.scatter import Dot, scatter
from raymask.report.searched import SHARES, Searched, Tried, read_search

_SHADES = 5  # q0 (worst fifth) to q4 (best); the best trial has a colour of its own
_ROWS = 25  # of the table
_ENOUGH = 5  # trials below which a rank correlation says nothing


def write_search_report(folder: Path | str, *, out: Path | str | None = None) -> Path:
    """Writes TUNE_RUN/report.html; returns its path. Raises ValueError where results.json cannot be read."""
    search = read_search(folder)
    return write_page(render(search), Path(out) if out is not None else search.folder / "report.html")


def render(search: Searched) -> str:
    """The page as HTML."""
    shades = shades_of(search)
    return (
        templates()
        .get_template("search.html")
        .render(
            name=search.folder.resolve().name,
            question=search.tree.get("question", ""),
            about=_about(search),
            tiles=_tiles(search),
            command=search.tree.get("command"),
            coordinates=_coordinates(search, shades),
            fronts=_fronts(search, shades),
            schedules=_schedules(search, shades),
            curves=_curves(search, shades),
            agreement=_agreement(search),
            table=_table(search),
            left_out=max(0, len(search.trials) - _ROWS),
            version=__version__,
        )
    )


def shades_of(search: Searched) -> dict[str, str]:
    """The CSS class of each trial: q0 to q4 by its rank, "best", and "none" where nothing was measured."""
    ranked = [trial.id for trial in search.ranked]
    shades = {name: f"q{_SHADES - 1 - n * _SHADES // len(ranked)}" for n, name in enumerate(ranked)}
    best = {search.best.id: "best"} if search.best else {}
    return {trial.id: "none" for trial in search.trials} | shades | best


def _bottom_up(search: Searched) -> list[Tried]:
    """The order in which lines are drawn: the best on top of all."""
    ranked = search.ranked
    measured = {trial.id for trial in ranked}
    best = [search.best] if search.best else []
    rest = [trial for trial in reversed(ranked) if not best or trial.id != best[0].id]
    return [*(trial for trial in search.trials if trial.id not in measured), *rest, *best]


def _about(search: Searched) -> str:
    tree = search.tree
    states = [trial.state for trial in search.trials]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return (
        f"space {tree.get('space')}, preset {tree.get('preset')}; {len(states)} trials ({counts}); "
        f"{'greatest' if tree['mode'] == 'max' else 'least'} {search.metric} is best"
    )


def _tiles(search: Searched) -> list[tuple[str, str]]:
    best = search.best
    value = best.objective(search.metric) if best else None
    seconds = sum(trial.seconds for trial in search.trials)
    return [
        *([(f"{search.metric} of {best.id}", number_text(value))] if best and value is not None else []),
        ("trials", str(len(search.trials))),
        ("device time of all", str(timedelta(seconds=round(seconds)))),
        ("images of all", number_text(float(sum(trial.images for trial in search.trials)))),
    ]


def _coordinates(search: Searched, shades: dict[str, str]) -> str:
    """What was drawn on the left, what came of it on the right."""
    rows = []
    for trial in _bottom_up(search):
        reached = {name: trial.objective(name) for name, _ in search.objectives}
        reached = {name: value for name, value in reached.items() if value is not None}
        rows.append((_named(trial, search.metric), shades[trial.id], {**trial.drawn, **reached}))
    return coordinates(rows, last=[name for name, _ in search.objectives])


def _fronts(search: Searched, shades: dict[str, str]) -> list[tuple[str, str]]:
    """Title and drawing of the metric against each other objective; against seconds where there is none."""
    (metric, mode), *others = search.objectives
    found = []
    for name, wanted in others or [("seconds", "min")]:
        values = [(trial, trial.objective(name), trial.objective(metric)) for trial in _bottom_up(search)]
        known = [(trial, x, y) for trial, x, y in values if x is not None and y is not None]
        kept = front([(y, x) for _, x, y in known], (mode, wanted))
        dots = [Dot(_named(trial, metric), x, y, shades[trial.id]) for trial, x, y in known]
        title = f"{metric} over {'seconds of the device' if name == 'seconds' else name}"
        drawing = scatter(title, dots, [dots[place].name for place in kept])
        found.append((title, drawing))
    return [(title, drawing) for title, drawing in found if drawing]


def _schedules(search: Searched, shades: dict[str, str]) -> list[Chart]:
    """A chart for each path at which schedules were tried, over the share of the training."""
    charts = []
    for path in search.paths:
        tried = [(trial, trial.schedules[path]) for trial in _bottom_up(search) if path in trial.schedules]
        lines = [
            Line(_named(trial, search.metric), SHARES, curve, shades[trial.id]) for trial, curve in tried
        ]
        charts.append(Chart(path, lines))
    return charts


def _curves(search: Searched, shades: dict[str, str]) -> list[Chart]:
    """The metric of all trials, and their loss where their run directories are there."""
    found: dict[str, list[tuple[Tried, list[tuple[float, float]]]]] = {search.metric: [], "loss": []}
    for trial in _bottom_up(search):
        measured = [(at, value) for at, value in trial.curve]
        own = trial.line(search.metric)
        found[search.metric].append((trial, own if len(own) > len(measured) else measured))
        if search.metric != "loss":
            found["loss"].append((trial, trial.line("loss")))
    charts = [
        Chart(f"{name} over images", [_curve(trial, points, search, shades) for trial, points in curves])
        for name, curves in found.items()
    ]
    return [chart for chart in charts if chart.legend]


def _curve(trial: Tried, points: list[tuple[float, float]], search: Searched, shades: dict[str, str]) -> Line:
    images, values = [at for at, _ in points], [value for _, value in points]
    return Line(_named(trial, search.metric), images, values, shades[trial.id])


def _named(trial: Tried, metric: str) -> str:
    value = trial.objective(metric)
    return trial.id if value is None else f"{trial.id}: {number_text(value)}"


def _agreement(search: Searched) -> list[tuple[str, str]]:
    """The rank correlation (Spearman's) of each other measure with the metric over the trials."""
    trials = search.ranked
    names = dict.fromkeys(name for trial in trials for name in trial.metrics if name != search.metric)
    rows = []
    for name in names:
        pairs = [(trial.objective(search.metric), trial.objective(name)) for trial in trials]
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        agreement = rank_correlation(*zip(*known)) if len(known) >= _ENOUGH else None
        if agreement is not None:
            rows.append((name, f"{agreement:+.2f}"))
    return rows


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's, with the mean rank for equal values; None where all values of one are equal."""
    left, right = (_ranks(np.asarray(values, float)) for values in (one, other))
    if np.ptp(left) == 0 or np.ptp(right) == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]


def _table(search: Searched) -> list[dict[str, str]]:
    """The best trials, then those without a result, with why."""
    ranked = search.ranked
    measured = {trial.id for trial in ranked}
    shown = [*ranked, *(trial for trial in search.trials if trial.id not in measured)][:_ROWS]
    return [
        {
            "id": trial.id,
            "value": "" if (value := trial.objective(search.metric)) is None else number_text(value),
            "state": trial.state,
            "seconds": f"{trial.seconds:,.0f}",
            "images": f"{trial.images:,}",
            "drawn": ", ".join(f"{name} {_text(given)}" for name, given in trial.drawn.items()),
            "error": trial.error or "",
        }
        for trial in shown
    ]


def _text(value: object) -> str:
    return number_text(value) if isinstance(value, float) else str(value)
