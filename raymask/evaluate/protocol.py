"""The evaluation of one backbone on a bank and queries: numbers named `eval/NAME`, accuracies in percent."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pipelines.data import open_train_and_val
from raymask.backbone import VisionBackbone
from raymask.evaluate.features import Features, extract, pixels
from raymask.evaluate.health import effective_rank, feature_std
from raymask.evaluate.knn import knn_accuracy, unit
from raymask.evaluate.linear import probe
from raymask.evaluate.settings import Evaluate
from raymask.evaluate.splits import HEALTH_IMAGES, Split, open_split, why_no_accuracies

if TYPE_CHECKING:
    from raymask.config import Config


@dataclass(frozen=True)
class Evaluation:
    """What a run evaluates on, opened and ready.

    bank, queries: the images that are searched, and those asked about (None where there are no accuracies)
    missing: why accuracies cannot be had, in a sentence, or None; the health of features needs no labels
    """

    settings: Evaluate
    bank: Split
    queries: Split | None
    missing: str | None
    seed: int

    @property
    def classes(self) -> int:
        """Number of classes."""
        return len(self.bank.source.classes)


def open_evaluation(config: "Config") -> Evaluation:
    """The evaluation that a run's config asks for. Raises ValueError where a data set cannot be opened."""
    settings, native = config.evaluate, config.backbone.image_size
    train, val = open_train_and_val(config.data)
    missing = why_no_accuracies(train, val)
    bank = open_split(train, config.data, settings, native=native, labelled=missing is None)
    if missing is not None or val is None:
        return Evaluation(settings, bank, None, missing, config.run.seed)
    queries = open_split(val, config.data, settings, native=native, labelled=True)
    return Evaluation(settings, bank, queries, None, config.run.seed)


def evaluate(
    backbone: VisionBackbone,
    evaluation: Evaluation,
    *,
    final: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """`eval/NAME`: health, k-NN and, when `final`, the linear probe if asked for.

    Where `evaluation.missing` says that there are no accuracies, health is all there is.
    """
    bank = extract(backbone, evaluation.bank.batches(), dtype=dtype)
    results = _health(bank.cls)
    if evaluation.queries is None:
        return results
    queries = extract(backbone, evaluation.queries.batches(), dtype=dtype)
    results |= _knn(evaluation, bank, queries)
    if final and evaluation.settings.linear:
        views, labels = _views(backbone, evaluation, bank, dtype)
        results |= _linear(evaluation, views, labels, queries)
    return results


def evaluate_pixels(evaluation: Evaluation) -> dict[str, float]:
    """k-NN on the pixels themselves: what a backbone has to beat. Raises ValueError without labels."""
    if evaluation.queries is None:
        raise ValueError(evaluation.missing)
    return _knn(evaluation, pixels(evaluation.bank.batches()), pixels(evaluation.queries.batches()))


def _views(
    backbone: VisionBackbone, evaluation: Evaluation, centre: Features, dtype: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """Features [v, n, e] and labels of `linear_views` random crops of the bank; of its centre crops for 1."""
    views = evaluation.settings.linear_views
    if views == 1:
        return centre.linear[None], centre.labels
    crops = (evaluation.bank.random_crops(seed=evaluation.seed, view=view) for view in range(views))
    found = [extract(backbone, batches, dtype=dtype) for batches in crops]
    return torch.stack([features.linear for features in found]), found[0].labels


def _health(features: Tensor) -> dict[str, float]:
    few = features[:: max(1, len(features) // HEALTH_IMAGES)][:HEALTH_IMAGES]
    return {"eval/feature_std": feature_std(few), "eval/effective_rank": effective_rank(few)}


def _knn(evaluation: Evaluation, bank: Features, queries: Features) -> dict[str, float]:
    settings = evaluation.settings
    if not settings.knn:
        return {}
    found = knn_accuracy(
        unit(bank.cls),
        bank.labels,
        unit(queries.cls),
        queries.labels,
        ks=settings.knn,
        classes=evaluation.classes,
        temperature=settings.temperature,
    )
    return {f"eval/knn{k}_top{top}": value for k, pair in found.items() for top, value in zip((1, 5), pair)}


def _linear(evaluation: Evaluation, views: Tensor, labels: Tensor, queries: Features) -> dict[str, float]:
    top1, top5 = probe(
        views,
        labels,
        queries.linear,
        queries.labels,
        classes=evaluation.classes,
        settings=evaluation.settings,
        seed=evaluation.seed,
    )
    return {"eval/linear_top1": top1, "eval/linear_top5": top5}
