"""The share of patches that a mask hides, where it is drawn afresh: iBOT's lists of ratios and spreads."""

from typing import Annotated, TypeVar

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from pipelines.settings import Settings
from raymask.progress import Progress
from raymask.schedules import Constant, Schedule

# b: rows

Spread = Annotated[float, Field(ge=0, lt=0.5)]
Draws = TypeVar("Draws", float, Tensor)


class Ratio(Settings):
    """A ratio drawn uniformly from ratio - spread .. ratio + spread; 0 masks nothing."""

    ratio: Schedule = Constant(value=0.0)
    spread: Spread = 0.0

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest ratio."""
        low, high = self.ratio.bounds()
        return low - self.spread, high + self.spread

    def at(self, draws: Draws, progress: Progress) -> Draws:
        """The ratio now, for draws in [0, 1)."""
        return self.ratio(progress) + self.spread * (2 * draws - 1)


def drawn_ratio(ratios: tuple[Ratio, ...], choice: float, draw: float, progress: Progress) -> float:
    """One of `ratios`, each as likely as the others, for two draws in [0, 1)."""
    return ratios[int(choice * len(ratios))].at(draw, progress)


def drawn_ratios(
    ratios: tuple[Ratio, ...], draws: Float[Tensor, "b 2"], progress: Progress
) -> Float[Tensor, " b"]:
    """The same for each row, of its draws of the ratio and of the choice."""
    each = torch.stack([ratio.at(draws[:, 0], progress) for ratio in ratios])
    return each.gather(0, (draws[:, 1] * len(ratios)).long()[None])[0]
