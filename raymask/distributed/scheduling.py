"""Who decides, at each check, which trials go on and which change."""

from functools import partial
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from raymask.distributed.inquiry import Inquiry


def scheduler_of(inquiry: Inquiry) -> TrialScheduler:
    """The scheduler that a search asks for. All count images, which a restored trial does not begin anew."""
    search, images = inquiry.search, inquiry.assignment.images
    # A little below the checks, whose images round down to whole batches.
    interval = max(1, int(0.8 * images / search.checks))
    if search.evolves:
        return _of_population(inquiry, interval)
    if search.scheduler == "none":
        return FIFOScheduler()
    return ASHAScheduler(
        time_attr="images",
        metric="metric",
        mode=search.mode,
        max_t=2 * images,  # a trial comes to its end by itself
        grace_period=interval,
        reduction_factor=2,
    )


def _of_population(inquiry: Inquiry, interval: int) -> TrialScheduler:
    """PBT or PB2, which look every so many images."""
    search, moved = inquiry.search, inquiry.space.mutations
    bounds: dict[str, Any] = {path: [float(low), float(high)] for path, (low, high) in moved.items()}
    within = partial(_clip, bounds=bounds)
    if search.scheduler == "pb2":
        from ray.tune.schedulers.pb2 import PB2

        return PB2(
            time_attr="images",
            metric="metric",
            mode=search.mode,
            perturbation_interval=interval,
            hyperparam_bounds=bounds,
            custom_explore_fn=within,
        )
    return PopulationBasedTraining(
        time_attr="images",
        metric="metric",
        mode=search.mode,
        perturbation_interval=interval,
        hyperparam_mutations={path: tune.uniform(*ends) for path, ends in bounds.items()},
        custom_explore_fn=within,
    )


def _clip(config: dict, *, bounds: dict[str, list[float]]) -> dict:
    """A population multiplies by 0.8 or 1.2: within the bounds, please."""
    moved = {path: float(min(max(config[path], low), high)) for path, (low, high) in bounds.items()}
    return {**config, **moved}
