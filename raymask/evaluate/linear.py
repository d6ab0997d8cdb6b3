"""The linear probe: a softmax classifier on frozen features, fitted by DINO's recipe or by MAE's.

Departures from both: features are computed once for `linear_views` random crops of every image and cached
(epoch e uses view e mod v), where the official code draws a new crop for every image and epoch; and the batch
is never larger than a sixteenth of the bank (MAE's at least 32 images), so that small data sets get enough
steps. The rate follows the batch either way.
"""

from collections.abc import Iterator
from math import cos, pi
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raymask.evaluate.lars import Lars
from raymask.evaluate.settings import Evaluate
from raymask.iteration_cosine import IterationCosine
from raymask.progress import Progress

# v: augmented views of the bank   n: images of the bank   m: queries   d: feature size   c: classes

MAE_WARMUP = 10 / 90  # share of the epochs


class Fit(NamedTuple):
    """How long, how fast, how many images at once."""

    epochs: int
    rate: float
    batch: int


RECIPES = {"dino": Fit(epochs=100, rate=0.001, batch=1024), "mae": Fit(epochs=90, rate=0.1, batch=4096)}
LEAST = {"dino": 1, "mae": 32}  # images that a batch has where there are so many: a batch norm wants rows


def probe(
    bank: Float[Tensor, "v n d"],
    bank_labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    query_labels: Int[Tensor, " m"],
    *,
    classes: int,
    settings: Evaluate,
    seed: int,
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy in percent (top-5 is top-`classes` where there are fewer than 5)."""
    generator = torch.Generator().manual_seed(seed)
    fit = fit_of(settings, images=bank.shape[1])
    classifier = _classifier(bank.shape[2], classes, generator).to(bank.device)
    learn = {"dino": _dino, "mae": _mae}[settings.linear_recipe]
    trained = learn(classifier, bank, bank_labels, fit, generator)
    return _accuracy(trained.eval(), queries, query_labels, classes)


def fit_of(settings: Evaluate, *, images: int) -> Fit:
    """What the settings ask for, and the recipe's own where they do not, on a bank of so many images."""
    recipe = RECIPES[settings.linear_recipe]
    share = max(images // 16, min(LEAST[settings.linear_recipe], images))
    epochs, rate = settings.linear_epochs or recipe.epochs, settings.linear_lr or recipe.rate
    return Fit(epochs, rate, min(settings.linear_batch or recipe.batch, share))


def _dino(
    classifier: nn.Linear, bank: Tensor, labels: Tensor, fit: Fit, generator: torch.Generator
) -> nn.Module:
    """SGD with momentum 0.9, no weight decay, and a cosine over epochs to 0."""
    peak = fit.rate * fit.batch / 256
    optimiser = torch.optim.SGD(classifier.parameters(), lr=peak, momentum=0.9)
    for epoch in range(fit.epochs):
        optimiser.param_groups[0]["lr"] = peak * (1 + cos(pi * epoch / fit.epochs)) / 2
        for features, truth in _batches(bank[epoch % len(bank)], labels, fit.batch, generator):
            optimiser.zero_grad()
            nn.functional.cross_entropy(classifier(features), truth).backward()
            optimiser.step()
    return classifier


def _mae(
    classifier: nn.Linear, bank: Tensor, labels: Tensor, fit: Fit, generator: torch.Generator
) -> nn.Module:
    """Batch norm without an affine map before the classifier; LARS, a rate by step with a warm-up."""
    norm = nn.BatchNorm1d(bank.shape[2], affine=False, eps=1e-6).to(bank.device, bank.dtype)
    network = nn.Sequential(norm, classifier).train()
    optimiser = Lars(list(classifier.parameters()))
    schedule = IterationCosine(peak=fit.rate * fit.batch / 256, warmup=MAE_WARMUP)
    steps = fit.epochs * -(-len(labels) // fit.batch)
    step = 0
    for epoch in range(fit.epochs):
        for features, truth in _batches(bank[epoch % len(bank)], labels, fit.batch, generator):
            rate = schedule(Progress(step, steps, steps / fit.epochs))
            step += 1
            if len(features) > 1:  # batch norm needs two
                nn.functional.cross_entropy(network(features), truth).backward()
                optimiser.step(rate)
    return network


def _classifier(width: int, classes: int, generator: torch.Generator) -> nn.Linear:
    classifier = nn.Linear(width, classes)
    with torch.no_grad():
        classifier.weight.copy_(torch.empty(classes, width).normal_(0, 0.01, generator=generator))
        classifier.bias.zero_()
    return classifier


def _batches(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], batch: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    order = torch.randperm(len(labels), generator=generator).to(labels.device)
    for rows in order.split(batch):
        yield features[rows], labels[rows]


@torch.no_grad()
def _accuracy(classifier: nn.Module, queries: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    return accuracies(classifier(queries), labels, classes=classes)


def accuracies(
    logits: Float[Tensor, "m c"], labels: Int[Tensor, " m"], *, classes: int
) -> tuple[float, float]:
    """Top-1 and top-5 accuracy in percent."""
    from torchmetrics.classification import MulticlassAccuracy  # takes seconds to import

    def top(k: int) -> float:
        metric = MulticlassAccuracy(classes, top_k=k, average="micro").to(logits.device)
        return 100.0 * float(metric(logits, labels))

    return top(1), top(min(5, classes))
