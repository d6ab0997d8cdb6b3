"""k-NN from a few labelled images a class (AttMask's low-shot protocol, arXiv:2203.12719)."""

from statistics import mean

import torch
from jaxtyping import Float, Int
from torch import Tensor

from raymask.evaluate.knn import knn_accuracy

# n: images of the bank   m: queries   d: feature size   r: chosen rows

# Images a class, and the places among a class's images at which the five runs start.
STARTS = {shots: tuple(turn * max(5, shots) for turn in range(5)) for shots in (1, 5, 10, 20)}
NEIGHBOURS = 20


def low_shot(
    bank: Float[Tensor, "n d"],
    bank_labels: Int[Tensor, " n"],
    queries: Float[Tensor, "m d"],
    query_labels: Int[Tensor, " m"],
    *,
    classes: int,
    temperature: float,
) -> dict[int, float]:
    """Top-1 accuracy in percent by images a class, the mean of up to five choices of them.

    One neighbour for one image a class, else 20. Each choice takes consecutive images of every class, in the
    order of the bank; a choice for which a class is too small is left out, and with all of them the number.
    Features need unit length.
    """
    found = {}
    for shots, starts in STARTS.items():
        chosen = [chosen_rows(bank_labels, classes=classes, start=start, shots=shots) for start in starts]
        k = 1 if shots == 1 else NEIGHBOURS
        tops = [
            _top1(bank[rows], bank_labels[rows], queries, query_labels, k, classes, temperature)
            for rows in chosen
            if len(rows) == shots * classes
        ]
        if tops:
            found[shots] = mean(tops)
    return found


def chosen_rows(labels: Int[Tensor, " n"], *, classes: int, start: int, shots: int) -> Int[Tensor, " r"]:
    """The rows of images number `start` .. `start + shots - 1` of each class."""
    rows = [(labels == number).nonzero()[start : start + shots, 0] for number in range(classes)]
    return torch.cat(rows)


def _top1(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    truth: Tensor,
    k: int,
    classes: int,
    temperature: float,
) -> float:
    found = knn_accuracy(bank, labels, queries, truth, ks=(k,), classes=classes, temperature=temperature)
    return next(iter(found.values()))[0]
