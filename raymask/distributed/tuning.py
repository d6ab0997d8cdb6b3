"""The trials of a search under Ray Tune, until none is left. Imported once Ray's environment is set."""

import logging
import os
import shutil
import sys
import warnings
from functools import partial
from typing import Any

from ray import tune
from tqdm import tqdm

from raymask.distributed.fork import prune
from raymask.distributed.inquiry import Inquiry
from raymask.distributed.preflight import alive
from raymask.distributed.results import Results
from raymask.distributed.roster import Roster
from raymask.distributed.scheduling import scheduler_of
from raymask.distributed.share import Share, share_out
from raymask.distributed.storage import check_storage
from raymask.distributed.table import Table
from raymask.distributed.tune_hooks import Asker, Ending, Watch
from raymask.signals import StopRequest


def run_trials(inquiry: Inquiry, results: Results, stop: StopRequest) -> None:
    """Runs every trial that has not ended, beginning those that never began; Ray is connected.

    A signal or a file in the search's directory ends it before: trials that run keep their state, and go on
    with the search.
    """
    search = inquiry.search
    nodes = alive()
    left = search.trials - sum(record.state != "running" for record in results.records.values())
    resources = [node["Resources"] for node in nodes]
    share = share_out(inquiry.base, resources, at_once=search.at_once, trials=max(1, left))
    places = [node for node in nodes if share.may_use(node["Resources"])]
    check_storage(inquiry.folder.parent, places, key="root", say=partial(tqdm.write, file=sys.stderr))
    roster, ending = Roster(inquiry, results, share), Ending(inquiry.folder, stop)
    table = Table(results, total=search.trials)
    watch = Watch(results, table, roster.proposer, images=roster.images, ending=ending)
    storage = inquiry.folder / "ray"
    shutil.rmtree(storage, ignore_errors=True)
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # which verbose=0 does not silence
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # it would end trials where they are
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # results.json and the table say what failed
    tuner = _tuner(inquiry, roster, watch, ending, share=share, left=left)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="sklearn")  # PB2 fits its few points as well as it can
        warnings.filterwarnings("ignore", message="Consider boosting PBT")  # by what workers do not allow
        tuner.fit()
    table.end(asked=ending.asked)
    results.write()
    shutil.rmtree(storage, ignore_errors=True)
    if all(record.state != "running" for record in results.records.values()):
        prune(
            [inquiry.folder / record.folder for record in results.records.values()], inquiry.base.train.keep
        )


def _tuner(
    inquiry: Inquiry, roster: Roster, watch: Watch, ending: Ending, *, share: Share, left: int
) -> tune.Tuner:
    """Ray Tune over the roster's trials, of which so many are left."""
    search = inquiry.search
    return tune.Tuner(
        tune.with_resources(roster.trainable(), share.resources),
        param_space=roster.population() if search.evolves else {},
        tune_config=tune.TuneConfig(
            num_samples=1 if search.evolves else left,
            scheduler=scheduler_of(inquiry),
            search_alg=None if search.evolves else Asker(lambda: None if ending.asked else roster.begin()),
            max_concurrent_trials=share.at_once,
            reuse_actors=inquiry.base.workers is None,  # it must not wait for workers to end
            trial_dirname_creator=_our_name,
        ),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(inquiry.folder / "ray"),
            callbacks=[watch],
            stop=ending,
            verbose=0,
            # Every pointer stays: a population may want any of them, and they are a line each.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=None),
        ),
    )


def _our_name(trial: Any) -> str:
    return trial.config["trial"]
