"""Weighted k-nearest-neighbour classification of frozen features (the protocol of DINO, arXiv:2104.14294)."""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

# n: images of the bank   m: queries   d: feature size   c: classes   k: neighbours


def neighbours(
    bank: Float[Tensor, "n d"], queries: Float[Tensor, "m d"], *, count: int, chunk: int = 1024
) -> tuple[Float[Tensor, "m k"], Int[Tensor, "m k"]]:
    """Cosine similarities and places in the bank of each query's nearest images, the nearest first.

    Features need unit length (`unit`). A count beyond the bank is the whole bank.
    """
    count = min(count, len(bank))
    found = [(part @ bank.T).topk(count, dim=1) for part in queries.split(chunk)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


def unit(features: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
    """The features scaled to unit length."""
    return torch.nn.functional.normalize(features, dim=1)


def votes(
    similarities: Float[Tensor, "m k"], labels: Int[Tensor, "m k"], *, classes: int, temperature: float
) -> Float[Tensor, "m c"]:
    """The neighbours' votes exp(similarity / temperature), summed by class."""
    weights = (similarities / temperature).exp()
    return weights.new_zeros(len(weights), classes).scatter_add_(1, labels, weights)


def knn_accuracy(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    query_labels: Int[Tensor, " m"],
    *,
    ks: tuple[int, ...],
    classes: int,
    temperature: float = 0.07,
) -> dict[int, tuple[float, float]]:
    """Top-1 and top-5 accuracy in percent by k. A k beyond the bank is the size of the bank, and is named so.

    Top-5 asks for the first min(5, k, classes) classes, as the official code does where there are 5 or more.
    Among classes with equal votes (mostly: none) the lower label goes first.
    """
    found = knn_ranks(
        bank, bank_labels, queries, query_labels, ks=ks, classes=classes, temperature=temperature
    )
    results: dict[int, tuple[float, float]] = {}
    for k, ranks in found.items():
        right = [int((ranks < top).sum()) for top in (1, top_of(k, classes))]
        results[k] = (100.0 * right[0] / len(queries), 100.0 * right[1] / len(queries))
    return results


def top_of(k: int, classes: int) -> int:
    """The classes that top-5 asks for."""
    return min(5, k, classes)


def knn_ranks(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    query_labels: Int[Tensor, " m"],
    *,
    ks: tuple[int, ...],
    classes: int,
    temperature: float = 0.07,
) -> dict[int, Int[Tensor, " m"]]:
    """By k: the place of each query's true class in the order of votes, from 0."""
    ks = tuple(sorted({min(k, len(bank)) for k in ks}))
    similarities, places = neighbours(bank, queries, count=max(ks))
    labels = bank_labels[places]
    return {k: _ranks(similarities[:, :k], labels[:, :k], query_labels, classes, temperature) for k in ks}


def _ranks(
    similarities: Float[Tensor, "m k"],
    labels: Int[Tensor, "m k"],
    truth: Int[Tensor, " m"],
    classes: int,
    temperature: float,
) -> Int[Tensor, " m"]:
    """The place of each query's true class in the order of votes, from 0."""
    chunk = max(1, 2**22 // classes)

    def parts() -> Iterator[Tensor]:
        for start in range(0, len(truth), chunk):
            part = slice(start, start + chunk)
            tally = votes(similarities[part], labels[part], classes=classes, temperature=temperature)
            order = tally.argsort(dim=1, descending=True, stable=True)
            yield (order == truth[part, None]).int().argmax(1)

    return torch.cat([truth[:0], *parts()])
