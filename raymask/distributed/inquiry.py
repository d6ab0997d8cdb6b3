"""A search, looked through before anything is started: what it could fail on is asked here."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipelines.data import open_train_and_val
from raymask.config import Config, anchored, to_tree
from raymask.distributed.assignment import Assignment
from raymask.distributed.lineage import as_schedules
from raymask.distributed.objectives import check_measurable, measured, resolve
from raymask.distributed.search import Search
from raymask.distributed.space import Space, Values, configure
from raymask.evaluate import open_evaluation
from raymask.plan import plan

_SAMPLES = 30  # draws that are tried before anything starts


@dataclass(frozen=True)
class Inquiry:
    """A search in which nothing is left open. objectives: (name, mode), the metric first"""

    search: Search
    base: Config
    space: Space
    assignment: Assignment
    objectives: list[tuple[str, str]]

    @property
    def folder(self) -> Path:
        """The directory of the search."""
        return self.search.folder()

    def describe(self) -> str:
        """The search in a line."""
        search, images = self.search, self.assignment.images
        against = "" if search.against == "none" else f" against {search.against}"
        return (
            f"{search.trials} trials of {search.preset} with {images:,} images each, {search.scheduler} and "
            f"{search.search}, for {search.metric} ({search.mode}){against}"
        )


def inquire(search: Search, base: Config, space: Space) -> Inquiry:
    """The search with every default filled in. Raises ValueError, in a sentence, where it cannot work."""
    inquiry = settle(search, base, space)
    _check_data(inquiry.base, inquiry.search)
    return inquiry


def settle(search: Search, base: Config, space: Space) -> Inquiry:
    """As `inquire`, without a look at the data, which another machine may hold."""
    if base.run.mirror is not None:
        raise ValueError(
            "run.mirror keeps runs, not searches, whose trials read one another's directories: leave it out, "
            "and set root to a folder that all nodes share (NFS)"
        )
    draws = list(_draws(space, search)) if not search.evolves else _ends_of(space, search)
    paths = {path for values in draws for path in values}
    metric, mode = resolve(search.metric or space.metric, search.mode, paths)
    search = _filled(search, space, metric, mode)
    base = measured(configure(to_tree(anchored(base)), space.fixed, space=space.name), metric)
    assignment = _assignment(search, base, space)
    for values in draws:
        assignment.config("t000", values)
    modes: list[tuple[str, str]] = [(metric, mode)]
    if search.against not in (None, "none"):
        modes.append((str(search.against), "min"))
    return Inquiry(search, base, space, assignment, modes)


def _filled(search: Search, space: Space, metric: str, mode: str) -> Search:
    """The search with what it left open."""
    against = search.against or space.against
    if against != "none" and search.scheduler == "asha":
        raise ValueError(
            f"scheduler=asha stops trials by {metric} alone, and so the cheap ones that against={against} "
            "asks for: leave scheduler out, or give against=none"
        )
    filled = {
        "metric": metric,
        "mode": mode,
        "against": against,
        "scheduler": search.scheduler or ("asha" if against == "none" else "none"),
        "search": search.search or ("random" if search.evolves else "optuna"),
        "name": search.name or f"{space.name}-{Path(search.preset).stem}",
        "root": str(Path(search.root).expanduser().resolve()),
    }
    return search.model_copy(update=filled)


def _assignment(search: Search, base: Config, space: Space) -> Assignment:
    """What the trials are told. Raises ValueError where the budget is less than an image for each."""
    images = search.budget // search.trials
    if not images:
        raise ValueError(
            f"budget={search.budget} images are less than one for each of trials={search.trials}: give more"
        )
    assert search.metric is not None
    return Assignment(
        tree=to_tree(base.model_copy(update={"run": base.run.model_copy(update={"resume": False})})),
        space=space.name,
        folder=str(search.folder() / "trials"),
        images=images,
        checks=search.checks,
        metric=search.metric,
        counts=search.against in ("flops", "teacher_flops"),
        moves=search.evolves,
    )


def _draws(space: Space, search: Search) -> Iterator[Values]:
    """What the space draws, by chance."""
    from raymask.distributed.proposals import Proposer

    proposer = Proposer(space, kind="random", directions=["max"], seed=search.seed, trials=_SAMPLES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna's, of values that it cannot store; they are refused below
        for number in range(_SAMPLES):
            asked = proposer.ask(str(number))
            assert asked is not None
            yield asked[1]


def _ends_of(space: Space, search: Search) -> list[Values]:
    """The lowest and the highest settings of a population, as constants and as a schedule."""
    if not space.mutations:
        raise ValueError(
            f"the space {space.name} has no MUTATIONS, which scheduler={search.scheduler} moves: choose "
            "scheduler=asha, or a space of schedules such as ratio_schedule"
        )
    low = {path: float(ends[0]) for path, ends in space.mutations.items()}
    high = {path: float(ends[1]) for path, ends in space.mutations.items()}
    return [low, high, as_schedules([[0, low], [1, high]], steps=2)]


def _check_data(base: Config, search: Search) -> None:
    assert search.metric is not None
    source, _ = open_train_and_val(base.data)
    plan(base.train, images=base.data.epoch_length(len(source)), evaluate_images=None)
    check_measurable(search.metric, open_evaluation(base), stops_early=search.scheduler != "none")
