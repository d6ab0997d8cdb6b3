"""Masks that the guide's attention chooses: AttMask (arXiv:2203.12719) High, Low, Hint; mixed with chance."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.hide import hide_top, least_share
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
    reveal: share of that pool to show; None is the mask ratio: drawn afresh for a batch, as in the official
        code, and with mask.per=image each image's own, as the paper words it
    """

    kind: Literal["attention"] = "attention"
    prefer: Literal["high", "low"] = "high"
    guidance: Share = Constant(value=1.0)
    block: int = -1
    reveal_pool: float = Field(0.0, ge=0, lt=1)
    reveal: Share | None = None

    @model_validator(mode="after")
    def _hints_are_of_what_is_hidden(self) -> "AttentionStrategy":
        if self.reveal is not None and not self.reveal_pool:
            raise ValueError(
                "mask.strategy.reveal is the share of mask.strategy.reveal_pool to show, which is 0: give "
                "reveal_pool (AttMask-Hint's is 0.1), or leave reveal out"
            )
        if self.reveal_pool and self.prefer == "low":
            raise ValueError(
                f"mask.strategy.reveal_pool={self.reveal_pool:g} shows some of the patches attended to most, "
                "but mask.strategy.prefer=low hides those attended to least: set prefer=high or reveal_pool=0"
            )
        return self

    def check(self, patches: int) -> None:
        """Raises ValueError where the pool of hints never holds one of so many patches."""
        if self.reveal_pool and not int(patches * self.reveal_pool):
            raise ValueError(
                f"mask.strategy.reveal_pool={self.reveal_pool:g} holds none of {patches} patches: "
                f"choose one of at least {least_share(patches):g}, or 0 for no hints"
            )

    @property
    def hides_exact_counts(self) -> bool:
        return self.reveal_pool == 0

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """The patches at the preferred end, less the hints."""
        assert guide.scores is not None, "the method gives no scores"
        attention = guide.scores.float() if guide.scores.dtype != torch.float64 else guide.scores
        share = self.reveal(guide.progress) if self.reveal else guide.hint_ratios
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
        shown: float | Float[Tensor, " b"] = 0.0,
    ) -> Bool[Tensor, "b n"]:
        """The same from given draws: `noise` beside the ranks, `hints` for which of the pool to show, a share
        `shown` of all patches, one for all rows or one a row."""
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
    attention: Float[Tensor, "b n"],
    draws: Float[Tensor, "b n"],
    pool: float,
    share: float | Float[Tensor, " b"],
) -> Bool[Tensor, "b n"]:
    """The hints of AttMask-Hint: int(share * n) patches drawn from the int(pool * n) most attended.

    A share that truncates to nothing reveals nothing (the official code crashes there).
    """
    patches = attention.shape[-1]
    most = int(patches * pool)
    among = hide_top(attention, most)
    if isinstance(share, Tensor):
        return hide_top(draws.masked_fill(~among, -1.0), (share * patches).long().clamp(max=most))
    return hide_top(draws.masked_fill(~among, -1.0), min(int(share * patches), most))
