"""The evaluation of one backbone on a bank and queries: numbers named `eval/NAME`, accuracies in percent."""

from dataclasses import dataclass
from functools import partial
from math import log
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from pipelines.data import open_train_and_val
from raymask.backbone import VisionBackbone
from raymask.classifier import Classifier
from raymask.evaluate.features import Features, pixels
from raymask.evaluate.health import effective_rank, feature_std, lidar
from raymask.evaluate.knn import knn_ranks, top_of, unit
from raymask.evaluate.linear import probe
from raymask.evaluate.low_shot import low_shot
from raymask.evaluate.ranks import extract_share, gather
from raymask.evaluate.settings import Evaluate
from raymask.evaluate.splits import HEALTH_IMAGES, Split, open_split, why_no_accuracies
from raymask.world import World, sum_across

if TYPE_CHECKING:
    from raymask.config import Config

ALONE = World()

_NO_ATTENTION = "no attention entropy: ConvViT has no class token whose attention could be measured"


@dataclass(frozen=True)
class Evaluation:
    """What a run evaluates on, opened and ready.

    bank, queries: the images that are searched, and those asked about (None where there are no accuracies)
    missing: why accuracies cannot be had, in a sentence, or None; the health of features needs no labels
    remark: what else was asked for and cannot be had, or None
    """

    settings: Evaluate
    bank: Split
    queries: Split | None
    missing: str | None
    seed: int

    remark: str | None = None

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
    remark = _NO_ATTENTION if settings.label_free and config.backbone.kind == "convvit" else None
    if missing is not None or val is None:
        return Evaluation(settings, bank, None, missing, config.run.seed, remark)
    queries = open_split(val, config.data, settings, native=native, labelled=True)
    return Evaluation(settings, bank, queries, None, config.run.seed, remark)


def evaluate(
    backbone: VisionBackbone,
    evaluation: Evaluation,
    *,
    world: World = ALONE,
    final: bool = False,
    dtype: torch.dtype | None = None,
    classifier: Classifier | None = None,
) -> dict[str, float]:
    """`eval/NAME`: health, k-NN and, when `final`, the linear probe if asked for; the same on every rank.

    classifier: what the method trained on the backbone, on the classes of the bank: its top-1 and top-5, too

    A collective of all ranks of `world`, which divide the work by batches, so that k-NN gives the numbers of
    one process exactly. Where `evaluation.missing` says that there are no accuracies, health is all there is.
    """
    settings = evaluation.settings
    linear = final and settings.linear and evaluation.queries is not None
    several = linear and settings.linear_views > 1
    looks = settings.label_free and backbone.attends
    share = partial(extract_share, backbone, world=world, dtype=dtype, recipe=settings.linear_recipe)
    own = share(evaluation.bank, attention=looks)
    bank = gather(own, world=world, linear=linear and not several)
    results = _health(bank)
    if settings.label_free:
        rows, columns = backbone.grid(*evaluation.bank.size)
        results |= _attention(bank, patches=rows * columns) | _lidar(backbone, evaluation, world, dtype)
    if evaluation.queries is None:
        return results
    queries = share(evaluation.queries, classifier=classifier)
    results |= _classified(evaluation, queries, world=world)
    results |= _knn(evaluation, bank, queries, world=world)
    if not final or not (settings.linear or settings.low_shot):
        return results
    whole = gather(queries, world=world, linear=linear)
    if settings.low_shot:
        results |= _low_shot(evaluation, bank, whole)
    if linear:
        views = _views(backbone, evaluation, world, dtype) if several else bank.linear[None]
        results |= _linear(evaluation, views, bank.labels, whole, world=world)
    return results


def _low_shot(evaluation: Evaluation, bank: Features, queries: Features) -> dict[str, float]:
    found = low_shot(
        unit(bank.cls),
        bank.labels,
        unit(queries.cls),
        queries.labels,
        classes=evaluation.classes,
        temperature=evaluation.settings.temperature,
    )
    return {f"eval/shots{shots}_top1": value for shots, value in found.items()}


def evaluate_pixels(evaluation: Evaluation) -> dict[str, float]:
    """k-NN on the pixels themselves: what a backbone has to beat. Raises ValueError without labels."""
    if evaluation.queries is None:
        raise ValueError(evaluation.missing)
    return _knn(evaluation, pixels(evaluation.bank.batches()), pixels(evaluation.queries.batches()))


def _views(
    backbone: VisionBackbone, evaluation: Evaluation, world: World, dtype: torch.dtype | None
) -> Tensor:
    """Features [v, n, e] of `linear_views` random crops of the bank, on the first rank."""

    def view(number: int) -> Tensor:
        cut = partial(Split.random_crops, seed=evaluation.seed, views=(number,))
        recipe = evaluation.settings.linear_recipe
        own = extract_share(backbone, evaluation.bank, world=world, dtype=dtype, cut=cut, recipe=recipe)
        return gather(own, world=world, linear=True).linear

    return torch.stack([view(number) for number in range(evaluation.settings.linear_views)])


def _health(bank: Features) -> dict[str, float]:
    few = bank.cls[:: max(1, len(bank.cls) // HEALTH_IMAGES)][:HEALTH_IMAGES]
    return {"eval/feature_std": feature_std(few), "eval/effective_rank": effective_rank(few)}


def _attention(bank: Features, *, patches: int) -> dict[str, float]:
    """How widely [CLS] looks: nats, also as a share of ln(patches), and by head; nothing for ConvViT."""
    if bank.attention is None:
        return {}
    heads = bank.attention.double().mean(0).tolist()
    mean = sum(heads) / len(heads)
    whole = {"eval/attention_entropy": mean, "eval/attention_entropy_share": mean / log(max(2, patches))}
    return whole | {f"eval/attention_entropy_head{number}": value for number, value in enumerate(heads, 1)}


def _lidar(
    backbone: VisionBackbone, evaluation: Evaluation, world: World, dtype: torch.dtype | None
) -> dict[str, float]:
    """LiDAR over the same seeded random crops at every evaluation."""
    settings = evaluation.settings
    cut = partial(Split.random_crops, seed=evaluation.seed, views=range(settings.lidar_views))
    few = evaluation.bank.spread(settings.lidar_images)
    own = extract_share(backbone, few, world=world, dtype=dtype, cut=cut, views=settings.lidar_views)
    views = gather(own, world=world).cls
    return {"eval/lidar": lidar(views.unflatten(0, (-1, settings.lidar_views)))}


def _classified(evaluation: Evaluation, queries: Features, *, world: World) -> dict[str, float]:
    """What the method's own classifier says right of the queries of all ranks; nothing without one."""
    from raymask.evaluate.accuracy import Top  # torchmetrics takes seconds to import

    if queries.places is None:
        return {}
    results = {}
    for name, top in ((1, 1), (5, min(5, evaluation.classes))):
        right = Top(top, together=world.size > 1).to(queries.places.device)
        right.update(queries.places)
        results[f"eval/top{name}"] = float(right.compute())
    return results


def _knn(
    evaluation: Evaluation, bank: Features, queries: Features, *, world: World = ALONE
) -> dict[str, float]:
    """Accuracies over the queries of all ranks, each of which answers its own, batch by batch.

    By batches because a product may differ in its last bit with the number of its rows.
    """
    from raymask.evaluate.accuracy import Top  # torchmetrics takes seconds to import

    settings, split = evaluation.settings, evaluation.queries
    if not settings.knn:
        return {}
    assert split is not None
    ks = sorted({min(k, len(bank.cls)) for k in settings.knn})
    tops = {(k, name): top for k in ks for name, top in ((1, 1), (5, top_of(k, evaluation.classes)))}
    found = {key: Top(top, together=world.size > 1).to(bank.cls.device) for key, top in tops.items()}
    known, asked = unit(bank.cls), unit(queries.cls)
    sizes = np.unique(split.batch_of(queries.samples.numpy()), return_counts=True)[1].tolist()
    for part, truth in zip(asked.split(sizes or [0]), queries.labels.split(sizes or [0])):
        places = knn_ranks(
            known,
            bank.labels,
            part,
            truth,
            ks=tuple(ks),
            classes=evaluation.classes,
            temperature=settings.temperature,
        )
        for (k, _), metric in found.items():
            metric.update(places[k])
    return {f"eval/knn{k}_top{name}": float(metric.compute()) for (k, name), metric in found.items()}


def _linear(
    evaluation: Evaluation, views: Tensor, labels: Tensor, queries: Features, *, world: World
) -> dict[str, float]:
    """The probe, fitted by the first rank alone; the others wait for its two numbers."""
    tops = torch.zeros(2, dtype=torch.float64, device=labels.device)
    if world.leads:
        found = probe(
            views,
            labels,
            queries.linear,
            queries.labels,
            classes=evaluation.classes,
            settings=evaluation.settings,
            seed=evaluation.seed,
        )
        tops = torch.tensor(found, dtype=torch.float64, device=labels.device)
    top1, top5 = (sum_across(tops) if world.size > 1 else tops).tolist()
    return {"eval/linear_top1": top1, "eval/linear_top5": top5}
