"""What a search may optimise: measures of the backbone, never the loss under masks that it is changing."""

import re
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Literal

from raymask.config import Config, change
from raymask.evaluate.protocol import Evaluation

Mode = Literal["max", "min"]

# More is better, except where nobody knows beforehand: then mode= has to say it.
LABEL_FREE: dict[str, Mode | None] = {
    "eval/effective_rank": "max",
    "eval/feature_std": "max",
    "eval/lidar": "max",
    "eval/attention_entropy": None,
}
_ASKED = ("eval/lidar", "eval/attention_entropy")  # measured with evaluate.label_free=true
LOSS = "loss"
_ACCURACY = re.compile(r"eval/(knn(?P<k>[1-9]\d*)_|(?P<linear>linear_))?top[15]")
_MASKING = ("mask", "method.keep")  # what makes a masked loss easier or harder


def resolve(metric: str, mode: Mode | None, paths: Iterable[str]) -> tuple[str, Mode]:
    """The full name of a metric and whether more of it is better; `paths` are what the search changes.

    Raises ValueError for an unknown metric, and for the training loss where masks are searched.
    """
    if metric in (LOSS, "train/loss"):
        masks = sorted(path for path in paths if _is_of_masks(path))
        if masks:
            raise ValueError(
                f"metric=loss cannot judge {', '.join(masks)}: fewer or easier hidden patches lower the "
                "training loss without a better backbone, so a search would end at masks that hide almost "
                "nothing; choose metric=eval/knn20_top1, or without labels metric=eval/effective_rank"
            )
        return LOSS, mode or "min"
    name = metric if metric.startswith("eval/") else f"eval/{metric}"
    if _ACCURACY.fullmatch(name):
        return name, mode or "max"
    if name not in LABEL_FREE:
        known = ["eval/top1", "eval/knn20_top1", "eval/linear_top1", *LABEL_FREE, LOSS]
        near = get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f": did you mean '{near[0]}'?" if near else "."
        raise ValueError(f"unknown metric '{metric}'{hint} There are {', '.join(known)}")
    chosen = mode or LABEL_FREE[name]
    if chosen is None:
        raise ValueError(f"metric={name} is good in neither direction by itself: give mode=max or mode=min")
    return name, chosen


def measured(config: Config, metric: str) -> Config:
    """`config`, evaluating what the metric needs: neighbours, a linear probe, what needs no labels.

    Raises ValueError where it is of a classifier that the method does not train.
    """
    if metric in _ASKED:
        return change(config, ["evaluate.label_free=true"])
    found = _ACCURACY.fullmatch(metric)
    if found is None:
        return config
    if found["linear"]:
        return change(config, ["evaluate.linear=true"])
    if found["k"]:
        neighbours = (*config.evaluate.knn, int(found["k"]))
        return change(config, [f"evaluate.knn={sorted(set(neighbours))}"])
    if "classes" not in type(config.method).model_fields:
        raise ValueError(
            f"metric={metric} is of the classifier that a method trains on labels, and method.kind="
            f"{config.method.kind} trains none: choose metric=eval/knn20_top1 or metric=eval/linear_top1"
        )
    return config


def check_measurable(metric: str, evaluation: Evaluation, *, stops_early: bool) -> None:
    """Raises ValueError where the data have no labels for a metric, or it comes too late for a scheduler."""
    found = _ACCURACY.fullmatch(metric)
    if found is None:
        return
    if evaluation.missing is not None:
        raise ValueError(
            f"metric={metric} cannot be measured: {evaluation.missing}; without labels choose "
            "metric=eval/effective_rank"
        )
    images = len(evaluation.bank.samples)
    if found["k"] is not None and int(found["k"]) > images:
        raise ValueError(
            f"metric={metric} asks for {found['k']} neighbours, but the bank has {images} images: choose "
            f"metric=eval/knn{min(20, images)}_top1"
        )
    if found["linear"] and stops_early:
        raise ValueError(
            f"metric={metric} is measured at the end of a trial only, where no scheduler can act on it: "
            "choose scheduler=none, or metric=eval/knn20_top1"
        )


def _is_of_masks(path: str) -> bool:
    return any(path == part or path.startswith(f"{part}.") for part in _MASKING)
