"""The linear probe: a softmax classifier on frozen features (DINO's protocol, with cached features)."""

from collections.abc import Iterator
from math import cos, pi

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from raymask.evaluate.settings import Evaluate

# v: augmented views of the bank   n: images of the bank   m: queries   d: feature size


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
    """Top-1 and top-5 accuracy in percent (top-5 is top-`classes` where there are fewer than 5).

    Weights N(0, 0.01), zero biases, SGD with momentum 0.9, no weight decay, rate linear_lr * batch / 256 and
    a cosine over epochs to 0, as official. Departures: features are computed once for `linear_views` random
    crops of every image and cached (epoch e uses view e mod v), where the official code draws a new crop for
    every image and epoch; and the batch is never larger than a sixteenth of the bank, so that small data sets
    get enough steps. The rate follows the batch either way.
    """
    generator = torch.Generator().manual_seed(seed)
    batch = max(1, min(settings.linear_batch, bank.shape[1] // 16))
    classifier = _classifier(bank.shape[2], classes, generator).to(bank.device)
    peak = settings.linear_lr * batch / 256
    optimiser = torch.optim.SGD(classifier.parameters(), lr=peak, momentum=0.9)
    for epoch in range(settings.linear_epochs):
        optimiser.param_groups[0]["lr"] = peak * (1 + cos(pi * epoch / settings.linear_epochs)) / 2
        for features, labels in _batches(bank[epoch % len(bank)], bank_labels, batch, generator):
            optimiser.zero_grad()
            nn.functional.cross_entropy(classifier(features), labels).backward()
            optimiser.step()
    return _accuracy(classifier, queries, query_labels, classes)


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
def _accuracy(classifier: nn.Linear, queries: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    from torchmetrics.classification import MulticlassAccuracy  # takes seconds to import

    logits = classifier(queries)

    def top(k: int) -> float:
        metric = MulticlassAccuracy(classes, top_k=k, average="micro").to(logits.device)
        return 100.0 * float(metric(logits, labels))

    return top(1), top(min(5, classes))
