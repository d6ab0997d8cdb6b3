"""The center of a teacher's outputs: a moving average over batches, subtracted before the softmax."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raymask.losses import moved_center
from raymask.world import sum_across

# k: prototypes


class Center(nn.Module):
    """DINO's center (eq. 4, arXiv:2104.14294): read during a step, moved at its end by what the step added.

    So a loss always sees the center of the step before, however many chunks and ranks share the batch.
    """

    value: Float[Tensor, " k"]
    total: Float[Tensor, " k"]
    rows: Float[Tensor, ""]

    def __init__(self, prototypes: int, *, momentum: float) -> None:
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(prototypes))
        # What the chunks of a step add up; zero between steps, so no checkpoint needs it.
        self.register_buffer("total", torch.zeros(prototypes), persistent=False)
        self.register_buffer("rows", torch.zeros(()), persistent=False)

    def add(self, logit_sum: Float[Tensor, " k"], rows: int) -> None:
        """Takes in the sum of the raw logits of so many rows."""
        self.total += logit_sum
        self.rows += rows

    @torch.no_grad()
    def move(self) -> None:
        """Moves by the mean of all that was added, on all ranks, since the last time."""
        total = sum_across(torch.cat([self.total, self.rows[None]]))
        self.value.copy_(moved_center(self.value, total[:-1], total[-1], momentum=self.momentum))
        self.total.zero_()
        self.rows.zero_()
