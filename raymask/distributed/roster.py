"""The trials of a search in their order: those that a killed driver left, then those that are proposed."""

import os
import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from raymask.distributed.assignment import Assignment
from raymask.distributed.inquiry import Inquiry
from raymask.distributed.proposals import Proposer
from raymask.distributed.results import Record, Results
from raymask.distributed.share import Share
from raymask.distributed.space import Values
from raymask.distributed.trial import run_trial
from raymask.distributed.trial_workers import run_trial_on_workers
from raymask.signals import asked_to_stop


class Roster:
    """Who runs: the trials that were running when a driver was killed, then new ones.

    images: of whole trials, by name; a trial's batch decides how its length rounds
    """

    def __init__(self, inquiry: Inquiry, results: Results, share: Share) -> None:
        search = inquiry.search
        self.inquiry, self.results = inquiry, results
        self.assignment = share.fitted(inquiry.assignment)
        self.images: dict[str, int] = {}
        self.waiting = [record for record in results.records.values() if record.state == "running"]
        self.proposer: Proposer | None = None
        if not search.evolves:
            self.proposer = Proposer(
                inquiry.space,
                kind=search.search or "optuna",
                directions=[mode for _, mode in inquiry.objectives],
                seed=search.seed,
                trials=search.trials,
                known=len(results.records),
            )
            for record in results.records.values():
                self._remember(record)

    def trainable(self) -> Callable[[dict], None]:
        """What runs in the process of a trial."""
        heard = {record.id: record.images for record in self.results.records.values()}
        return partial(_trial, assignment=self.assignment, heard=heard)

    def begin(self) -> dict | None:
        """The config of the next trial for Tune, or None where there is none left.

        Draws that make no config fail at once, as trials do.
        """
        record = self.waiting.pop(0) if self.waiting else self._draw()
        while record is not None:
            try:
                self._measure(record)
                return {"trial": record.id, "values": record.values}
            except ValueError as error:
                record.state, record.error = "failed", str(error)
                self._proposer.tell(record.id, None)
                self.results.write()
            record = self._draw()
        return None

    def _draw(self) -> Record | None:
        """A trial that is new; None where there were enough, or the grid is at its end."""
        number = len(self.results.records)
        asked = self._proposer.ask(f"t{number:03d}") if number < self.inquiry.search.trials else None
        return self._enter(f"t{number:03d}", asked[1], params=asked[0]) if asked is not None else None

    @property
    def _proposer(self) -> Proposer:
        assert self.proposer is not None, "a population proposes by itself"
        return self.proposer

    def population(self) -> dict[str, Any]:
        """The trials of a population for Tune, which moves their settings itself."""
        from ray import tune

        for number in range(len(self.results.records), self.inquiry.search.trials):
            self.waiting.append(self._enter(f"t{number:03d}", self._start(number), params={}))
        for record in self.waiting:
            self._measure(record)
        starts = {r.id: r.history[-1][1] if r.history else r.values for r in self.waiting}
        paths = list(self.inquiry.space.mutations)
        moved = {path: tune.sample_from(partial(_of_trial, starts=starts, path=path)) for path in paths}
        return {"trial": tune.grid_search(list(starts)), **moved}

    def _start(self, number: int) -> Values:
        """Where trial `number` of a population starts: by chance, from its seed and number alone."""
        draw = random.Random(f"{self.inquiry.search.seed} {number}")
        return {path: draw.uniform(*ends) for path, ends in self.inquiry.space.mutations.items()}

    def _enter(self, name: str, values: Values, *, params: dict) -> Record:
        record = Record(id=name, values=values, params=params, folder=f"trials/{name}")
        self.results.records[name] = record
        self.results.write()
        return record

    def _measure(self, record: Record) -> None:
        config = self.assignment.config(record.id, record.values)
        assert config.train.steps is not None
        self.images[record.id] = config.train.steps * config.train.global_batch

    def _remember(self, record: Record) -> None:
        """Tells the proposer of a trial of before."""
        self._proposer.recall(record.id, record.params)
        for images, score in record.curve:
            self._proposer.note(record.id, score, check=int(images))
        if record.state != "running":
            scores = None if record.state == "failed" else self.results.scores(record)
            self._proposer.tell(record.id, scores, ended=record.state == "done")


def _of_trial(spec: Any, *, starts: dict[str, Values], path: str) -> float:
    return starts[spec["config"]["trial"]][path]


def _trial(config: dict, *, assignment: Assignment, heard: dict[str, int]) -> None:
    """Runs in the process of a trial. Its directory names it: after an exploit its config is another's.

    heard: images of each trial of before, as far as results.json knows what was measured
    """
    from ray import tune

    if asked_to_stop(Path(assignment.folder).parent):
        return  # before it began
    moves, alone = assignment.moves, assignment.tree["workers"] is None
    name = os.path.basename(tune.get_context().get_trial_dir().rstrip("/"))  # noqa: PTH119
    values = {path: value for path, value in config.items() if path != "trial"} if moves else config["values"]
    (run_trial if alone else run_trial_on_workers)(name, values, assignment, heard=heard.get(name, 0))
