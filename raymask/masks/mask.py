"""What is masked, for whom, and how much: the settings, and the one call that draws the masks of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Int
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.hide import hidden_count, hide_top, visible_indices
from raymask.masks.ranking import RandomStrategy
from raymask.masks.signature import mask_signature
from raymask.progress import Progress
from raymask.schedules import Constant, Schedule
from raymask.streams import Rng, uniforms

# v: views   b: images   n: patches   k: visible patches

Strategy = RandomStrategy  # a union by `kind` as soon as there are two


@dataclass(frozen=True)
class Masks:
    """The masks of some views of one size.

    hidden: True = the network does not see the patch
    count: hidden patches of every masked row
    signature: order-free 64-bit sum, on the device
    """

    hidden: Bool[Tensor, "v b n"]
    count: int
    signature: Int[Tensor, ""]

    def visible(self) -> Int[Tensor, "v b k"]:
        """The indices of the patches that stay, ascending; only where every row is masked."""
        return visible_indices(self.hidden, self.count)


class Mask(Settings):
    """The mask policy.

    strategy: which patches go first
    kind: hidden patches become the mask token, leave the sequence, or are zeroed in the normalised image
    views: none, the student's global crops (arXiv:2506.10582), all its crops, or the teacher's crops as well
    ratio: share of the patches to hide, truncated to a count
    probability: share of the rows (an image in a view) that are masked at all
    """

    strategy: Strategy = RandomStrategy()
    kind: Literal["token", "drop", "pixel"] = "token"
    views: Literal["none", "student_globals", "student", "student_and_teacher"] = "student_globals"
    ratio: Schedule = Constant(value=0.3)
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0

    @field_validator("ratio")
    @classmethod
    def _leaves_something(cls, ratio: Schedule) -> Schedule:
        low, high = ratio.bounds()
        if low < 0 or high >= 1 or high <= 0:
            given = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ValueError(
                f"a mask ratio of {given} leaves nothing visible or nothing hidden: "
                "choose one between 0 and 1, or mask.views=none for no masks"
            )
        return ratio

    @model_validator(mode="after")
    def _drops_equal_counts(self) -> "Mask":
        if self.kind == "drop" and self.probability < 1:
            raise ValueError(
                f"mask.probability={self.probability:g} cannot go with mask.kind=drop, where every row "
                "must hide the same count: choose mask.kind=token or mask.probability=1"
            )
        return self

    def count(self, patches: int, progress: Progress) -> int:
        """How many of `patches` are hidden now."""
        high = self.ratio.bounds()[1]
        if not hidden_count(high, patches):
            raise ValueError(
                f"a mask ratio of {high:g} hides none of {patches} patches: "
                f"choose one of at least {1 / patches:.3g}"
            )
        return hidden_count(self.ratio(progress), patches)

    def draw(
        self,
        epochs: Int[Tensor, " b"],
        samples: Int[Tensor, " b"],
        *,
        views: Sequence[int],
        patches: int,
        progress: Progress,
        rng: Rng,
        purpose: str = "mask",
    ) -> Masks:
        """Independent masks of these views, a pure function of (seed, purpose, epoch, sample, view).

        views: numbers of the crops among all of the image's, which key the draws; all of `patches` patches
        """
        count = self.count(patches, progress)
        hidden, signatures = [], []
        for view in views:
            keys = rng.per_sample(purpose, epochs, samples, view)
            rows = hide_top(self.strategy.scores(keys, patches), count)
            if self.probability < 1:
                draws = uniforms(rng.per_sample(f"{purpose}_row", epochs, samples, view), 1)
                rows = rows & (draws <= self.probability)
            hidden.append(rows)
            signatures.append(mask_signature(rows, epochs, samples, view))
        return Masks(torch.stack(hidden), count, torch.stack(signatures).sum())
