"""What every masking strategy is given, and what it gives."""

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor

from raymask.progress import Progress

# b: rows (an image in a view)   n: patches


@dataclass(frozen=True)
class Guide:
    """The patches to choose from: whose they are, how many to hide, and what the guide network says of them.

    keys: one stream a row, for its draws
    ratios: share to hide in each row; rows of equal ratio hide equal counts
    grid: rows and columns of patches
    scores: the higher, the more the guide attends to a patch; None where no strategy asked for it
    hint_ratios: the ratio that hints go by: a second, independent draw of the batch's, or each row's own
    """

    keys: Int[Tensor, " b"]
    ratios: Float[Tensor, " b"]
    grid: tuple[int, int]
    progress: Progress
    scores: Float[Tensor, "b n"] | None = None
    hint_ratios: float | Float[Tensor, " b"] = 0.0

    @property
    def patches(self) -> int:
        """Patches of a row."""
        return self.grid[0] * self.grid[1]

    @property
    def counts(self) -> Int[Tensor, " b"]:
        """Patches to hide in each row: truncated, as the official code does."""
        return (self.ratios * self.patches).long()


class Strategy(Protocol):
    """Chooses the patches to hide."""

    @property
    def hides_exact_counts(self) -> bool:
        """Whether each row hides exactly int(ratio * patches), as dropping needs."""

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """True where a patch is hidden."""
