"""Masks that the guide's attention chooses: AttMask (arXiv:2203.12719) High, Low, Hint; mixed with chance."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.hide import hide_top
from raymask.masks.strategy import Guide
from raymask.schedules import Constant, Share
from raymask.streams import fold, uniforms

# b: rows   n: patches


class AttentionStrategy(Settings):
    """Hide what the guide attends to most (AttMask-High) or least (Low).

    prefer: which end of the scores is hidden
    guidance: 1 follows the scores, 0 is random, between them ranks are mixed with noise
    block: the guide's block whose [CLS] row gives the scores; negative from the end
    reveal_pool: AttMask-Hint: share of the patches, the most attended, of which some are shown; 0 for none
    reveal: share of that pool to show; None draws it like the mask ratio, afresh, as the official code does
    """

    kind: Literal["attention"] = "attention"
    prefer: Literal["high", "low"] = "high"
    guidance: Share = Constant(value=1.0)
    block: int = -1
    reveal_pool: float = Field(0.0, ge=0, lt=1)
    reveal: Share | None = None

    @property
    def hides_exact_counts(self) -> bool:
        return self.reveal_pool == 0

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """The patches at the preferred end, less the hints."""
        assert guide.scores is not None, "the method gives no scores"
        attention = guide.scores.float() if guide.scores.dtype != torch.float64 else guide.scores
        share = self.reveal(guide.progress) if self.reveal else guide.ratio_draw
        return self.choose(
            attention,
            guide.counts,
            noise=uniforms(fold(guide.keys, 0), guide.patches),
            guidance=self.guidance(guide.progress),
            hints=uniforms(fold(guide.keys, 1), guide.patches) if self.reveal_pool else None,
            shown=self.reveal_pool * share,
        )

    def choose(
        self,
        attention: Float[Tensor, "b n"],
        counts: int | Int[Tensor, " b"],
        *,
        noise: Float[Tensor, "b n"],
        guidance: float,
        hints: Float[Tensor, "b n"] | None = None,
        shown: float = 0.0,
    ) -> Bool[Tensor, "b n"]:
        """The same from given draws: `noise` beside the ranks, `hints` for which of the pool to show, a share
        `shown` of all patches."""
        ranked = mix_ranks(attention if self.prefer == "high" else -attention, noise, guidance)
        hidden = hide_top(ranked, counts)
        return hidden if hints is None else hidden & ~revealed(attention, hints, self.reveal_pool, shown)


def mix_ranks(
    scores: Float[Tensor, "b n"], noise: Float[Tensor, "b n"], guidance: float
) -> Float[Tensor, "b n"]:
    """guidance * rank(scores) + (1 - guidance) * noise, ranks spread over [0, 1], the highest score at 1.

    Among equal scores the lower place ranks higher. `noise` is uniform in [0, 1).
    """
    if guidance == 0:
        return noise
    order = scores.argsort(dim=-1, descending=True, stable=True)
    steps = torch.linspace(1, 0, scores.shape[-1], dtype=noise.dtype, device=noise.device)
    ranks = torch.empty_like(noise).scatter(-1, order, steps.expand_as(noise))
    return ranks if guidance == 1 else guidance * ranks + (1 - guidance) * noise


def revealed(
    attention: Float[Tensor, "b n"], draws: Float[Tensor, "b n"], pool: float, share: float
) -> Bool[Tensor, "b n"]:
    """The hints of AttMask-Hint: int(share * n) patches drawn from the int(pool * n) most attended.

    A share that truncates to nothing reveals nothing (the official code crashes there).
    """
    patches = attention.shape[-1]
    among = hide_top(attention, int(patches * pool))
    return hide_top(draws.masked_fill(~among, -1.0), min(int(share * patches), int(patches * pool)))
