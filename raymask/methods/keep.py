"""Which patches the teacher sees: MaskedKD's selection as settings that act."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import model_validator
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.attention import mix_ranks
from raymask.masks.select import check_count, keep_count, keep_highest, map_grid, with_random_share
from raymask.progress import Progress
from raymask.schedules import Constant, Schedule, Share

# b: images   n: patches of the grid of scores   m: patches of the teacher   kept: patches the teacher sees

Grid = tuple[int, int]


class Keep(Settings):
    """How the patches are chosen that the frozen teacher sees; all others are dropped.

    ratio: share of the teacher's patches; on a 14 x 14 grid 0.75 and 0.4 are the paper's 144 and 80
    count: the same as an exact number, instead of the ratio
    source: whose [CLS] attention gives the scores: the student's own (the method), the teacher's on the whole
        image, another frozen network's (`method.selector`), or nobody's: random
    row: whose row of the student's attention counts: that of [CLS], or its mean with the distillation token's
    prefer: keep the highest or, as a baseline, the lowest scores
    guidance: 1 follows the scores, 0 is random, between them ranks are mixed with noise
    random_share: share of the kept patches that is drawn from all but the best instead (the paper's Table 5:
        0.2)
    grids: where the teacher's grid is not that of the scores: resample the scores bilinearly, or refuse
    """

    ratio: Share | None = None
    count: Schedule | None = None
    source: Literal["student", "teacher", "network", "random"] = "student"
    row: Literal["cls", "mean"] = "cls"
    prefer: Literal["highest", "lowest"] = "highest"
    guidance: Share = Constant(value=1.0)
    random_share: Share = Constant(value=0.0)
    grids: Literal["bilinear", "equal"] = "bilinear"

    @model_validator(mode="after")
    def _one_amount(self) -> "Keep":
        if self.ratio is not None and self.count is not None:
            raise ValueError("keep.ratio and keep.count say the same thing twice: give one of them")
        if self.ratio is not None and self.ratio.bounds()[0] <= 0:
            raise ValueError("keep.ratio reaches 0, but the teacher must see at least one patch")
        return self

    @model_validator(mode="after")
    def _counts_whole_patches(self) -> "Keep":
        count = self.count  # schedules pass through fractions, which are rounded
        if isinstance(count, Constant) and count.value != int(count.value):
            raise ValueError(
                f"keep.count={count.value:g} is no whole number of patches: give {int(count.value)} or "
                f"{int(count.value) + 1}"
            )
        return self

    @model_validator(mode="after")
    def _chance_follows_no_scores(self) -> "Keep":
        for name in ("prefer", "guidance", "random_share") if self.source == "random" else ():
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(
                    f"keep.{name} says what becomes of scores, and keep.source=random has none: leave it "
                    "out, or set keep.source=student, teacher or network"
                )
        return self

    def amount(self, patches: int, progress: Progress) -> int:
        """How many of the teacher's patches stay now. Raises ValueError for a count that it does not have."""
        if self.count is not None:
            return check_count(int(self.count(progress) + 0.5), patches=patches)
        return patches if self.ratio is None else keep_count(patches, self.ratio(progress))

    def check(self, patches: int) -> None:
        """Raises ValueError for a count, now or later in its schedule, that the teacher does not have."""
        for count in () if self.count is None else self.count.bounds():
            check_count(int(count + 0.5), patches=patches)

    @property
    def is_partial(self) -> bool:
        """Whether the teacher ever misses a patch."""
        return self.count is not None or (self.ratio is not None and self.ratio.bounds()[0] < 1)

    def choose(
        self,
        scores: Float[Tensor, "b n"] | None,
        noise: Float[Tensor, "2 b m"],
        *,
        source: Grid,
        target: Grid,
        progress: Progress,
    ) -> Int[Tensor, "b kept"]:
        """The places kept on the teacher's grid `target`, ascending, from scores on the grid `source`.

        `noise` is uniform in [0, 1), two draws a patch; without scores it decides alone.
        """
        chance, blur = noise
        count = self.amount(target[0] * target[1], progress)
        if scores is None:
            return keep_highest(chance, count)
        with torch.autocast(scores.device.type, enabled=False):
            fitted = self._on_grid(scores, source=source, target=target)
            signed = fitted if self.prefer == "highest" else -fitted
            share = self.random_share(progress)
            if share > 0:
                signed = with_random_share(signed, chance, count=count, share=share)
            return keep_highest(mix_ranks(signed, blur, self.guidance(progress)), count)

    def _on_grid(self, scores: Float[Tensor, "b n"], *, source: Grid, target: Grid) -> Float[Tensor, "b m"]:
        check_grids(source, target, resample=self.grids == "bilinear")
        return map_grid(scores, source=source, target=target)


def check_grids(source: Grid, target: Grid, *, resample: bool) -> None:
    """Raises ValueError where scores of one grid say nothing about the other."""
    if source == target:
        return
    (rows, columns), (teacher_rows, teacher_columns) = source, target
    both = f"{rows} x {columns} patches and the teacher {teacher_rows} x {teacher_columns}"
    if not resample:
        raise ValueError(
            f"the student has {both}: give both networks the same grid; method.keep.grids=bilinear maps "
            "scores, not the tokens of the manifold objective"
        )
    if rows * teacher_columns != columns * teacher_rows:
        raise ValueError(
            f"the scores come from {both}: grids of different aspect cannot be mapped onto each other, "
            "so choose image and patch sizes of one aspect"
        )
