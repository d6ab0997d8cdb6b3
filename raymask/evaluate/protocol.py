"""The evaluation of one backbone on a bank and queries: numbers named `eval/NAME`, accuracies in percent."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from raymask.evaluate import crops
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

    bank, queries: the images that are searched, and those asked about (None without a held-out split)
    missing: why accuracies cannot be had, in a sentence, or None; the health of features needs no labels
    """

    settings: Evaluate
    bank: Split
    queries: Split | None
    missing: str | None
    seed: int


def open_evaluation(config: "Config") -> Evaluation:
    """The evaluation that a run's config asks for. Raises ValueError where a data set cannot be opened."""
    settings, data = config.evaluate, config.data.located()
    shape = crops.shape(settings, native=config.backbone.image_size)
    missing = why_no_accuracies(data)
    bank = open_split(data.train, settings, shape, labelled=missing is None)
    queries = open_split(data.val, settings, shape, labelled=True) if missing is None else None
    return Evaluation(settings, bank, queries, missing, config.run.seed)


def evaluate(
    backbone: torch.nn.Module,
    evaluation: Evaluation,
    *,
    final: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """`eval/NAME` of a `VisionBackbone`: health, k-NN and, when `final`, the linear probe if asked for.

    Where `evaluation.missing` says that there are no accuracies, health is all there is.
    """
    bank = extract(backbone, evaluation.bank.images(), dtype=dtype)
    results = _health(bank.cls)
    if evaluation.queries is None:
        return results
    queries = extract(backbone, evaluation.queries.images(), dtype=dtype)
    results |= _knn(evaluation, bank.cls, queries.cls)
    if final and evaluation.settings.linear:
        results |= _linear(evaluation, _views(backbone, evaluation, bank, dtype), queries.linear)
    return results


def evaluate_pixels(evaluation: Evaluation) -> dict[str, float]:
    """k-NN on the pixels themselves: what a backbone has to beat. Raises ValueError without labels."""
    if evaluation.queries is None:
        raise ValueError(evaluation.missing)
    return _knn(evaluation, pixels(evaluation.bank.images()), pixels(evaluation.queries.images()))


def _views(
    backbone: torch.nn.Module, evaluation: Evaluation, centre: Features, dtype: torch.dtype | None
) -> Tensor:
    """[v, n, e]: features of `linear_views` random crops of the bank, or of its centre crops for 1."""
    views = evaluation.settings.linear_views
    if views == 1:
        return centre.linear[None]
    return torch.stack(
        [
            extract(backbone, evaluation.bank.images(seed=evaluation.seed, view=v), dtype=dtype).linear
            for v in range(views)
        ]
    )


def _health(features: Tensor) -> dict[str, float]:
    few = features[:: max(1, len(features) // HEALTH_IMAGES)][:HEALTH_IMAGES]
    return {"eval/feature_std": feature_std(few), "eval/effective_rank": effective_rank(few)}


def _knn(evaluation: Evaluation, bank: Tensor, queries: Tensor) -> dict[str, float]:
    if not evaluation.settings.knn:
        return {}
    found = knn_accuracy(
        unit(bank),
        evaluation.bank.labels.to(bank.device),
        unit(queries),
        evaluation.queries.labels.to(queries.device),
        ks=evaluation.settings.knn,
        classes=len(evaluation.bank.classes),
        temperature=evaluation.settings.temperature,
    )
    return {f"eval/knn{k}_top{top}": value for k, pair in found.items() for top, value in zip((1, 5), pair)}


def _linear(evaluation: Evaluation, bank: Tensor, queries: Tensor) -> dict[str, float]:
    top1, top5 = probe(
        bank,
        evaluation.bank.labels.to(bank.device),
        queries,
        evaluation.queries.labels.to(queries.device),
        classes=len(evaluation.bank.classes),
        settings=evaluation.settings,
        seed=evaluation.seed,
    )
    return {"eval/linear_top1": top1, "eval/linear_top5": top5}
