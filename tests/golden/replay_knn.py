"""Replays of the weighted k-NN of the official DINO code."""

import torch

from raymask.evaluate.knn import knn_accuracy
from tests.golden.cases import Case, Deviation, compare, replays


@replays("dino/knn")
def knn(case: Case) -> list[Deviation]:
    """Top-1 and top-5 by k, exactly."""
    results = knn_accuracy(
        case["train_features"],
        case["train_labels"],
        case["test_features"],
        case["test_labels"],
        ks=tuple(case["k"].tolist()),
        classes=case.meta["hyper"]["num_classes"],
        temperature=case.meta["hyper"]["T"],
    )
    got = torch.tensor([results[k] for k in case["k"].tolist()], dtype=torch.float64)
    return [compare("top1", got[:, 0], case["top1"]), compare("top5", got[:, 1], case["top5"])]
