"""Masked views of one image that hide different patches as far as the ratio allows (arXiv:2301.00230).

Every view hides the same count. A view prefers patches that no earlier view has hidden, so that all views
together hide ("predict") as much of the image as asked. One view alone is MAE's random mask. Patches are
hidden in square units; a unit of one patch is MAE's mask, one of 2 x 2 patches ConvViT's.
"""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from pipelines.settings import Settings
from raymask.masks.strategy import Guide

# v: views   b: images   s: units of an image   k: visible units   n: patches   p: visible patches


SEVERAL_VIEWS = (
    "mask.strategy.kind=disjoint makes masked views of one crop, which only method.kind=mae and dmjd "
    "train on: choose mask.strategy.kind=random"
)


class Disjoint(Settings):
    """Views that hide disjoint units as far as the mask ratio allows.

    views: None is as many as reach the prediction rate, ceil(rate / ratio)
    unit: patches along a side of a unit
    prediction_rate: share of the image hidden in at least one view; None is as much as the views can
    """

    kind: Literal["disjoint"] = "disjoint"
    views: int | None = Field(None, ge=1)
    unit: int = Field(2, ge=1)
    prediction_rate: float | None = Field(None, gt=0, le=1)

    @property
    def hides_exact_counts(self) -> bool:
        return True

    def hide(self, guide: Guide) -> Bool[Tensor, "b n"]:
        """Refused: a method that sees its crops once has no other views to be disjoint from."""
        raise ValueError(SEVERAL_VIEWS)

    def plan(self, ratio: float, grid: tuple[int, int]) -> "Plan":
        """How many units each view hides on a grid of (rows, columns) patches at this mask ratio."""
        rows, columns = grid
        if rows % self.unit or columns % self.unit:
            raise ValueError(
                f"units of {self.unit}x{self.unit} patches do not tile a grid of {rows}x{columns} patches: "
                f"choose another mask.strategy.unit, crop size or patch size"
            )
        _check_ratio(ratio)
        rate = 1.0 if self.prediction_rate is None else self.prediction_rate
        needed = max(1, ceil(rate / ratio - 1e-9))
        if self.prediction_rate is not None and self.views is not None and self.views < needed:
            raise ValueError(
                f"mask.strategy.views={self.views} at a mask ratio of {ratio:g} hide at most "
                f"{self.views * ratio:g} of an image, below mask.strategy.prediction_rate={rate:g}: choose "
                f"{needed} views, a mask ratio of at least {rate / self.views:.3g}, or a lower rate"
            )
        return plan(rows * columns // self.unit**2, ratio, rate, self.views or needed)

    def reached(self, ratio: float) -> float:
        """The share of the image that all views together hide at this mask ratio."""
        if self.prediction_rate is not None:
            return self.prediction_rate
        return 1.0 if self.views is None else min(1.0, self.views * ratio)


@dataclass(frozen=True)
class Plan:
    """Counts of units: of the image, visible in each view, and newly hidden by each view."""

    units: int
    visible: int
    fresh: tuple[int, ...]

    @property
    def views(self) -> int:
        return len(self.fresh)

    @property
    def hidden(self) -> int:
        return self.units - self.visible


def plan(units: int, ratio: float, rate: float, views: int) -> Plan:
    """The counts of `views` masks at mask ratio `ratio` that together hide the share `rate` of the image.

    Two views round as the released code does; more views are our reading of the paper's sequential sampling:
    each hides as many new units as it can until the rate is reached. Raises where a view would hide all or
    nothing.
    """
    _check_ratio(ratio)
    if rate < ratio:
        raise ValueError(
            f"the prediction rate {rate} is below the mask ratio {ratio}: one view already predicts more, "
            f"so choose a rate of at least {ratio}"
        )
    visible = int(units * (1 - ratio))  # truncation of a float64, like the official code
    hidden = units - visible
    if visible == 0:
        raise ValueError(
            f"a mask ratio of {ratio} leaves no visible unit of {units}: lower the ratio or use smaller units"
        )
    if views == 2:
        return Plan(units, visible, (hidden, int(min(rate - ratio, ratio) * units)))
    fresh, predicted = [hidden], hidden
    for _ in range(views - 1):
        fresh.append(max(0, min(hidden, int(rate * units + 1e-9) - predicted)))
        predicted += fresh[-1]
    return Plan(units, visible, tuple(fresh))


def _check_ratio(ratio: float) -> None:
    if not 0 < ratio < 1:
        raise ValueError(f"a mask ratio of {ratio} hides nothing or everything: choose one between 0 and 1")


def disjoint_order(draws: Float[Tensor, "v b s"], counts: Plan) -> Int[Tensor, "v b s"]:
    """The units of each view, the `counts.visible` visible ones first, given a uniform draw a view and unit.

    The first view shows the units with the lowest draws. Each later view hides those with the lowest draws,
    the planned number from the units not predicted so far and the rest from the others; what remains is
    visible, new units first. This is the order of the released code, whose permutations shared by all images
    are a special case of the draws.
    """
    assert draws.shape[0] == counts.views and draws.shape[2] == counts.units
    views = [draws[0].argsort(dim=1, stable=True)]
    predicted = _flags(views[0][:, counts.visible :], counts.units)
    unpredicted = counts.visible
    for draw, fresh in zip(draws[1:], counts.fresh[1:]):
        order = draw.argsort(dim=1, stable=True)
        # A stable sort by "predicted already" keeps the draws' order within both groups.
        order = order.gather(1, predicted.gather(1, order).to(torch.uint8).argsort(dim=1, stable=True))
        new, kept, old, rest = order.split(
            [fresh, unpredicted - fresh, counts.hidden - fresh, counts.visible + fresh - unpredicted], dim=1
        )
        views.append(torch.cat([kept, rest, new, old], dim=1))
        predicted = predicted | _flags(new, counts.units)
        unpredicted -= fresh
    return torch.stack(views)


def _flags(chosen: Int[Tensor, "b h"], count: int) -> Bool[Tensor, "b {count}"]:
    return torch.zeros(len(chosen), count, dtype=torch.bool, device=chosen.device).scatter_(1, chosen, True)


def unit_patches(units: Int[Tensor, "*lead k"], grid: tuple[int, int], unit: int) -> Int[Tensor, "*lead p"]:
    """The patches of the given units, corner by corner (all top left ones first), like the released code."""
    if unit == 1:
        return units
    columns = grid[1] // unit
    row, column = units // columns * unit, units % columns * unit
    corners = [(row + i) * grid[1] + column + j for i in range(unit) for j in range(unit)]
    return torch.cat(corners, dim=-1)


def hidden_from(visible: Int[Tensor, "*lead p"], patches: int) -> Bool[Tensor, "*lead n"]:
    """The mask that shows exactly the patches `visible`: True is hidden."""
    mask = torch.ones(*visible.shape[:-1], patches, dtype=torch.bool, device=visible.device)
    return mask.scatter_(-1, visible, False)
