"""Recorded images as the batches that a method is trained on."""

import torch
from torch import Tensor

from pipelines.batch import Batch


def batch_of(crops: dict[str, Tensor], step: int, *, labels: Tensor | None = None) -> Batch:
    """The whole batch of a step: crops by group [v, b, 3, h, w]; no labels unless given."""
    count = crops["global"].shape[1]
    where = torch.arange(count)
    return Batch(
        crops=crops,
        labels=torch.full_like(where, -1) if labels is None else labels,
        samples=where,
        epochs=torch.zeros_like(where),
        positions=where + step * count,
        step=step,
        rows=count,
        signature=0,
    )
