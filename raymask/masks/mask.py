"""What is masked, for whom, and how much: the settings, and the one call that draws the masks of a step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.attention import AttentionStrategy
from raymask.masks.block import BlockStrategy
from raymask.masks.disjoint import Disjoint
from raymask.masks.hide import hidden_count, least_share, some_rows, visible_indices
from raymask.masks.ranking import RandomStrategy
from raymask.masks.ratio import Ratio, Spread, drawn_ratio, drawn_ratios
from raymask.masks.signature import mask_signature
from raymask.masks.strategy import Guide
from raymask.progress import Progress
from raymask.schedules import Constant, Schedule
from raymask.streams import Rng, uniforms

# v: views   b: images   n: patches   k: visible patches

AnyStrategy = Annotated[
    RandomStrategy | AttentionStrategy | BlockStrategy | Disjoint, Field(discriminator="kind")
]


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

    strategy: which patches are hidden
    kind: hidden patches become the mask token, leave the sequence, or are zeroed in the normalised image
    views: none, the student's global crops (arXiv:2506.10582), all its crops, or the teacher's crops as well
    ratio: share of the patches to hide, truncated to a count
    spread: the ratio is drawn uniformly from ratio - spread .. ratio + spread
    others: further ratios with spreads of their own; each draw takes one of all, as iBOT's lists do
    per: draw it once for the whole batch, as AttMask does, or for each image and view, as iBOT does
    probability: share of the rows (an image in a view) that are masked at all
    start: share of the training, in whole epochs, before which nothing is masked (iBOT's start epoch)
    """

    strategy: AnyStrategy = RandomStrategy()
    kind: Literal["token", "drop", "pixel"] = "token"
    views: Literal["none", "student_globals", "student", "student_and_teacher"] = "student_globals"
    ratio: Schedule = Constant(value=0.3)
    spread: Spread = 0.0
    others: tuple[Ratio, ...] = ()
    per: Literal["batch", "image"] = "batch"
    probability: Annotated[float, Field(gt=0, le=1)] = 1.0
    start: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _leaves_something(self) -> "Mask":
        low, high = self.bounds()
        if low < 0 or high >= 1 or high <= 0:
            given = f"{low:g}" if low == high else f"{low:g} to {high:g}"
            raise ValueError(
                f"a mask ratio of {given} leaves nothing visible or nothing hidden: "
                "choose one between 0 and 1, or mask.views=none for no masks"
            )
        return self

    @model_validator(mode="after")
    def _drops_equal_counts(self) -> "Mask":
        exact = self.strategy.hides_exact_counts
        uneven = {
            f"mask.probability={self.probability:g}": self.probability < 1,
            f"mask.spread={self.spread:g} with mask.per=image": self.spread > 0 and self.per == "image",
            "mask.others with mask.per=image": bool(self.others) and self.per == "image",
            f"mask.strategy.kind={self.strategy.kind}"
            + " with hints" * (self.strategy.kind == "attention"): not exact,
        }
        for what, holds in uneven.items():
            if self.kind == "drop" and holds:
                raise ValueError(
                    f"{what} cannot go with mask.kind=drop, where every row must hide the same count: "
                    "choose mask.kind=token, or what hides equal counts"
                )
        return self

    @model_validator(mode="after")
    def _guide_sees_the_crops(self) -> "Mask":
        if self.is_guided and self.views in ("student", "student_and_teacher"):
            raise ValueError(
                f"mask.strategy.kind={self.strategy.kind} cannot go with mask.views={self.views}: "
                "the guide looks only at whole global crops, so choose mask.views=student_globals"
            )
        return self

    @model_validator(mode="after")
    def _views_are_even(self) -> "Mask":
        if isinstance(self.strategy, Disjoint) and (self.spread or self.start or self.others):
            others = ", and there are mask.others" if self.others else ""
            raise ValueError(
                f"mask.strategy.kind=disjoint hides mask.ratio in every view from the first step on, but "
                f"mask.spread={self.spread:g}, mask.start={self.start:g}{others}: leave them out, and make "
                "mask.ratio a schedule if it is to change"
            )
        return self

    @property
    def ratios(self) -> tuple[Ratio, ...]:
        """All ratios that a draw chooses from."""
        own = Ratio.model_construct(ratio=self.ratio, spread=self.spread)  # unchecked: any kind of schedule
        return (own, *self.others)

    @property
    def is_guided(self) -> bool:
        """Whether some network's attention is needed."""
        return self.guide_block is not None

    @property
    def guide_block(self) -> int | None:
        """The guide's block whose attention is needed; None where none is."""
        masks = self.views != "none"
        return self.strategy.block if masks and isinstance(self.strategy, AttentionStrategy) else None

    @property
    def draws_each_row(self) -> bool:
        """Whether each image and view has a ratio of its own."""
        return self.per == "image" and bool(self.spread or self.others)

    def check_guide(self, depth: int) -> None:
        """Raises ValueError where a guide of so many blocks lacks the one whose attention is needed."""
        block = self.guide_block
        if block is not None and not -depth <= block < depth:
            raise ValueError(
                f"mask.strategy.block={block}, but the guide has {depth} blocks: "
                f"choose one from 0 to {depth - 1}, or from -1 to {-depth} from the end"
            )

    def guidance(self, progress: Progress) -> float:
        """How far the guide decides now: 0 is chance, 1 is its attention alone."""
        return self.strategy.guidance(progress) if isinstance(self.strategy, AttentionStrategy) else 0.0

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest ratio."""
        lows, highs = zip(*(ratio.bounds() for ratio in self.ratios))
        return min(lows), max(highs)

    def check(self, patches: int) -> None:
        """Raises ValueError where the ratio never hides, or hints never show, one of so many patches."""
        high = self.bounds()[1]
        if not hidden_count(high, patches):
            raise ValueError(
                f"a mask ratio of {high:g} hides none of {patches} patches: "
                f"choose one of at least {least_share(patches):g}"
            )
        if isinstance(self.strategy, AttentionStrategy):
            self.strategy.check(patches)

    def draw(
        self,
        epochs: Int[Tensor, " b"],
        samples: Int[Tensor, " b"],
        *,
        views: Sequence[int],
        grid: tuple[int, int],
        progress: Progress,
        rng: Rng,
        scores: Float[Tensor, "v b n"] | None = None,
        purpose: str = "mask",
    ) -> Masks:
        """Independent masks of these views, a function of (seed, purpose, epoch, sample, view) and `scores`.

        views: numbers of the crops among all of the image's, which key the draws; all of `grid` patches
        scores: what the guide attends to, by view
        """
        self.check(grid[0] * grid[1])
        choices, places = (rng.per_step(f"{purpose}_{what}", 2) for what in ("choice", "ratio"))
        first, second = (self._ratio(*pair, progress) for pair in zip(choices, places))
        hidden, signatures = [], []
        for index, view in enumerate(views):
            ratios = self._ratios(
                first, epochs, samples, view=view, progress=progress, rng=rng, purpose=purpose
            )
            guide = Guide(
                keys=rng.per_sample(purpose, epochs, samples, view),
                ratios=ratios,
                grid=grid,
                progress=progress,
                scores=None if scores is None else scores[index],
                hint_ratios=ratios if self.draws_each_row else second,
            )
            rows = self.strategy.hide(guide)
            if self.probability < 1:
                draws = uniforms(rng.per_sample(f"{purpose}_row", epochs, samples, view), 1)
                rows = some_rows(rows, draws, self.probability)
            hidden.append(rows)
            signatures.append(mask_signature(rows, epochs, samples, view))
        return Masks(
            torch.stack(hidden), hidden_count(first, grid[0] * grid[1]), torch.stack(signatures).sum()
        )

    def _ratio(self, choice: float, draw: float, progress: Progress) -> float:
        """The ratio for two uniform draws."""
        return drawn_ratio(self.ratios, choice, draw, progress) if self._masks_now(progress) else 0.0

    def _ratios(
        self,
        shared: float,
        epochs: Int[Tensor, " b"],
        samples: Int[Tensor, " b"],
        *,
        view: int,
        progress: Progress,
        rng: Rng,
        purpose: str,
    ) -> Float[Tensor, " b"]:
        """The ratio of each row."""
        if not self.draws_each_row or not self._masks_now(progress):
            return torch.full(samples.shape, shared, dtype=torch.float64, device=samples.device)
        draws = uniforms(rng.per_sample(f"{purpose}_ratio", epochs, samples, view), 2)
        return drawn_ratios(self.ratios, draws, progress)

    def _masks_now(self, progress: Progress) -> bool:
        return progress.epoch >= round(self.start * progress.epochs)
