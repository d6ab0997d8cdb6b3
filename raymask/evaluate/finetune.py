"""End-to-end fine-tuning on the labels of the training images, judged on held-out ones: MAE's recipe.

As released for MAE, ConvMAE and DMJD: the mean of the last block's patches, a fresh layer norm and
classifier, AdamW whose rate falls from layer to layer, mixup, cutmix, RandAugment, random erasing and drop
path.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pipelines.batch import Batch
from pipelines.data import Data
from pipelines.loader import Loader
from raymask.backbone import VisionBackbone
from raymask.device import autocast
from raymask.distillation import base_loss
from raymask.evaluate.finetune_network import FineTuned, layered, set_rates
from raymask.evaluate.finetune_settings import FineTune
from raymask.evaluate.linear import accuracies
from raymask.iteration_cosine import IterationCosine
from raymask.methods.views import drop_path_draws
from raymask.mixing import Erasing, erase, mix
from raymask.progress import Progress
from raymask.streams import Rng

if TYPE_CHECKING:
    from raymask.evaluate.protocol import Evaluation

# m: held-out images   c: classes


class Plan(NamedTuple):
    """Images a step, steps, and steps of an epoch."""

    batch: int
    steps: int
    steps_per_epoch: float


def plan(settings: FineTune, *, images: int) -> Plan:
    """The steps on so many images."""
    batch = max(2, min(settings.batch, images // 16))
    return Plan(batch, max(1, int(settings.epochs * images / batch)), images / batch)


def finetune(
    backbone: VisionBackbone,
    evaluation: "Evaluation",
    settings: FineTune,
    *,
    data: Data,
    dtype: torch.dtype | None = None,
) -> dict[str, float]:
    """`eval/finetune_top1` and `_top5` of a copy of the backbone that learned the labels.

    Raises ValueError where there are no accuracies to be had, or training images without a label.
    """
    if evaluation.queries is None:
        raise ValueError(evaluation.missing)
    source, device = evaluation.bank.source, next(backbone.parameters()).device
    if missing := int((np.asarray(source.labels) < 0).sum()):
        raise ValueError(
            f"evaluate.finetune learns from labels, but {missing:,} of the {len(source):,} training images "
            "have none: pack images in folders of classes"
        )
    network = FineTuned(backbone, evaluation.classes, drop_path=settings.drop_path, seed=evaluation.seed).to(
        device
    )
    cut = {"crops": settings.crops(data.crops, evaluation.bank.size), "augment": "cpu", "repeats": 1}
    steps = plan(settings, images=len(source))
    loader = Loader(
        data.model_copy(update=cut), source, batch=steps.batch, seed=evaluation.seed, steps=steps.steps
    )
    with loader:
        _learn(network, (batch.to(device) for batch in loader), settings, steps, evaluation, dtype)
    logits, labels = _answers(network.eval(), evaluation, dtype)
    top1, top5 = accuracies(logits, labels, classes=evaluation.classes)
    return {"eval/finetune_top1": top1, "eval/finetune_top5": top5}


def _learn(
    network: FineTuned,
    batches: Iterator[Batch],
    settings: FineTune,
    steps: Plan,
    evaluation: "Evaluation",
    dtype: torch.dtype | None,
) -> None:
    """Trains all layers, each at its own rate."""
    groups = layered(network, decay=settings.layer_decay, weight_decay=settings.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999))
    peak = settings.base_lr * steps.batch / 256
    schedule = IterationCosine(peak=peak, end=min(settings.min_lr, peak), warmup=min(settings.warmup, 0.99))
    network.train()
    for step, batch in enumerate(batches):
        rng = Rng(evaluation.seed, step)
        set_rates(optimiser, schedule(Progress(step, steps.steps, steps.steps_per_epoch)))
        images, targets = _augmented(batch, settings, evaluation.classes, rng)
        with autocast(images.device, dtype):
            logits = network(images, drop=drop_path_draws(network.backbone, batch, rng, views=[0]))
        optimiser.zero_grad(set_to_none=True)
        base_loss(logits.float(), targets, smoothing=settings.smoothing).backward()
        optimiser.step()


def _augmented(batch: Batch, settings: FineTune, classes: int, rng: Rng) -> tuple[Tensor, Tensor]:
    images, targets = batch.crops["global"][0], batch.labels
    if settings.erasing > 0:
        keys = rng.per_sample("erase", batch.epochs, batch.samples)
        images = erase(images, keys, erasing=Erasing(probability=settings.erasing))
    if settings.mixing.mixes:
        images, targets = mix(images, targets, mixing=settings.mixing, classes=classes, rng=rng)
    return images, targets


@torch.no_grad()
def _answers(
    network: FineTuned, evaluation: "Evaluation", dtype: torch.dtype | None
) -> tuple[Float[Tensor, "m c"], Tensor]:
    """Logits and labels of the centre crops of the held-out images."""
    device = next(network.parameters()).device
    logits, labels = [], []
    assert evaluation.queries is not None
    for batch in evaluation.queries.batches():
        with autocast(device, dtype):
            logits.append(network(batch.images.to(device)).float())
        labels.append(batch.labels.to(device))
    return torch.cat(logits), torch.cat(labels)
