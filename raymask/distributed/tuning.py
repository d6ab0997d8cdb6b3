"""The trials of a search under Ray Tune, until none is left. Imported once Ray's environment is set."""

import logging
import os
import random
import shutil
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from ray import tune
from ray.tune.schedulers import (
    ASHAScheduler,
    FIFOScheduler,
    PopulationBasedTraining,
    TrialScheduler,
)

from raymask.distributed.assignment import Assignment
from raymask.distributed.inquiry import Inquiry
from raymask.distributed.preflight import alive, check_storage
from raymask.distributed.proposals import Proposer
from raymask.distributed.results import Record, Results
from raymask.distributed.share import Share, share_out
from raymask.distributed.space import Values
from raymask.distributed.table import Table
from raymask.distributed.trial import run_trial
from raymask.distributed.trial_workers import run_trial_on_workers
from raymask.distributed.tune_hooks import Asker, Watch

_KEEP = None  # Tune's pointers: a population may want any of them, and they are a line each


def run_trials(inquiry: Inquiry, results: Results) -> None:
    """Runs every trial that has not ended, beginning those that never began; Ray is connected."""
    search = inquiry.search
    nodes = alive()
    check_storage(inquiry.folder, nodes)
    share = share_out(inquiry.base, [node["Resources"] for node in nodes], at_once=search.at_once)
    left = search.trials - sum(record.state != "running" for record in results.records.values())
    roster = Roster(inquiry, results, share)
    trainable = tune.with_resources(roster.trainable(), share.resources)
    table = Table(results, total=search.trials)
    watch = Watch(results, table, roster.proposer, images=roster.images)
    storage = inquiry.folder / "ray"
    shutil.rmtree(storage, ignore_errors=True)
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")  # a stopped trial closes its loader first
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which verbose=0 does not silence
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # results.json and the table say what failed
    tuner = tune.Tuner(
        trainable,
        param_space=roster.population() if search.evolves else {},
        tune_config=tune.TuneConfig(
            num_samples=1 if search.evolves else left,
            scheduler=_scheduler(inquiry),
            search_alg=None if search.evolves else Asker(roster.begin, metric="metric", mode=_mode(inquiry)),
            max_concurrent_trials=share.at_once,
            reuse_actors=inquiry.base.workers is None,  # it must not wait for workers to end
            trial_dirname_creator=_our_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(storage),
            callbacks=[watch],
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(num_to_keep=_KEEP),
        ),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # PB2 fits its few points as well as it can
        tuner.fit()
    table.show(last=True)
    results.write()
    shutil.rmtree(storage, ignore_errors=True)


def _our_name(trial: Any) -> str:
    return trial.config["trial"]


def _mode(inquiry: Inquiry) -> str:
    assert inquiry.search.mode is not None
    return inquiry.search.mode


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
        return partial(_trial, assignment=self.assignment)

    def begin(self) -> dict | None:
        """The config of the next trial for Tune, or None where there is none left."""
        if self.waiting:
            record = self.waiting.pop(0)
        else:
            assert self.proposer is not None
            name = f"t{len(self.results.records):03d}"
            asked = self.proposer.ask(name)
            if asked is None:
                return None
            record = self._enter(name, asked[1], params=asked[0])
        self._measure(record)
        return {"trial": record.id, "values": record.values}

    def population(self) -> dict[str, Any]:
        """The trials of a population for Tune, which moves their settings itself."""
        if not self.results.records:
            for number in range(self.inquiry.search.trials):
                self._enter(f"t{number:03d}", self._start(number), params={})
            self.waiting = list(self.results.records.values())
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
        assert self.proposer is not None
        self.proposer.recall(record.id, record.params)
        for images, score in record.curve:
            self.proposer.note(record.id, score, check=int(images))
        if record.state != "running":
            scores = None if record.state == "failed" else self.results.scores(record)
            self.proposer.tell(record.id, scores, ended=record.state == "done")


def _of_trial(spec: Any, *, starts: dict[str, Values], path: str) -> float:
    return starts[spec["config"]["trial"]][path]


def _trial(config: dict, *, assignment: Assignment) -> None:
    """Runs in the process of a trial. Its directory names it: after an exploit its config is another's."""
    moves, alone = assignment.moves, assignment.tree["workers"] is None
    name = os.path.basename(tune.get_context().get_trial_dir().rstrip("/"))  # noqa: PTH119
    values = {path: value for path, value in config.items() if path != "trial"} if moves else config["values"]
    (run_trial if alone else run_trial_on_workers)(name, values, assignment)


def _scheduler(inquiry: Inquiry) -> TrialScheduler:
    search, images = inquiry.search, inquiry.assignment.images
    metric, mode = "metric", _mode(inquiry)
    each = images / search.checks
    if search.scheduler == "asha":
        # Rungs a little below the checks, whose images round down; the end is left to the trial itself.
        return ASHAScheduler(
            time_attr="images",
            metric=metric,
            mode=mode,
            max_t=2 * images,
            grace_period=max(1, int(0.8 * each)),
            reduction_factor=2,
        )
    if not search.evolves:
        return FIFOScheduler()
    bounds: dict[str, Any] = {
        path: [float(low), float(high)] for path, (low, high) in inquiry.space.mutations.items()
    }
    within = partial(_clip, bounds=bounds)
    if search.scheduler == "pb2":
        from ray.tune.schedulers.pb2 import PB2

        return PB2(
            time_attr="images",
            metric=metric,
            mode=mode,
            perturbation_interval=0.8 * each,
            hyperparam_bounds=bounds,
            custom_explore_fn=within,
        )
    return PopulationBasedTraining(
        time_attr="images",
        metric=metric,
        mode=mode,
        perturbation_interval=0.8 * each,
        hyperparam_mutations={path: tune.uniform(*ends) for path, ends in bounds.items()},
        custom_explore_fn=within,
    )


def _clip(config: dict, *, bounds: dict[str, list[float]]) -> dict:
    """A population multiplies by 0.8 or 1.2: within the bounds, please."""
    moved = {path: float(min(max(config[path], low), high)) for path, (low, high) in bounds.items()}
    return {**config, **moved}
