"""Shares of right answers: each rank counts for its own queries, torchmetrics adds up over all."""

import torch
from jaxtyping import Int
from torch import Tensor
from torchmetrics import Metric

# m: queries


class Top(Metric):
    """Percent of queries whose true class is among the first `top`, given its place in the order of votes.

    Counts are integers, so that several ranks give the number of one to the last bit. With `together`,
    `compute` is a collective of all ranks.
    """

    right: Tensor
    asked: Tensor
    full_state_update = False

    def __init__(self, top: int, *, together: bool) -> None:
        super().__init__(distributed_available_fn=lambda: together)
        self.top = top
        self.add_state("right", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("asked", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, places: Int[Tensor, " m"]) -> None:
        """Counts these queries; a rank without any passes none of them."""
        self.right += (places < self.top).sum()
        self.asked += len(places)

    def compute(self) -> Tensor:
        """The percentage, float64."""
        return 100.0 * self.right.double() / self.asked.double()
