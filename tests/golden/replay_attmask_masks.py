"""Replays of the masks of AttMask and iBOT from the draws that were logged with them."""

from math import exp

import torch
from torch import Tensor

from raymask.masks import Mask
from raymask.masks.attention import AttentionStrategy
from raymask.masks.block import ASPECT, TRIES, BlockStrategy, block_masks
from raymask.masks.hide import hide_top, some_rows
from raymask.progress import Progress
from raymask.streams import Rng
from tests.golden.cases import Case, Deviation, compare, replays


@replays("attmask/masks")
def masks(case: Case) -> list[Deviation]:
    """High, Low and Hint from one attention row, masked with a probability; exact."""
    return [
        compare(call["key"], official_mask(case.under(f"{call['key']}/"), call), case[f"{call['key']}/mask"])
        for call in case.meta["calls"]
    ]


def official_mask(given: dict, call: dict) -> Tensor:
    """The official mask from an attention row and the draws that were logged with it."""
    attention, hints = given["attention"], None
    if (
        given.get("revealed_idx") is not None
    ):  # ours shows the highest draws: give those to the official choice
        hints = torch.zeros(attention.shape, dtype=torch.float64).scatter(1, given["revealed_idx"], 0.5)
    strategy = AttentionStrategy(
        prefer="low" if call["mode"] == "attmask_low" else "high", reveal_pool=call.get("show_max", 0.0)
    )
    hidden = strategy.choose(
        attention,
        int(attention.shape[1] * call["masking_ratio"]),
        noise=torch.zeros_like(attention),
        guidance=1.0,
        hints=hints,
        shown=call.get("show_ratio") or 0.0,
    )
    return some_rows(hidden, given["u_masking_prob"][:, None], call["masking_prob"])


@replays("attmask/masks_per_image")
def masks_per_image(case: Case) -> list[Deviation]:
    """Another ratio for each row; exact."""
    attention, patches = case["attention"], case["attention"].shape[1]
    counts = (case["ratio"].double() * patches).long()
    return [
        compare("high", hide_top(attention, counts), case["mask_attmask_high"]),
        compare("low", hide_top(-attention, counts), case["mask_attmask_low"]),
    ]


@replays("attmask/block_masks")
def block(case: Case) -> list[Deviation]:
    """Block-wise masks, exactly, from the official draws; and the distribution of counts from ours."""
    hyper, grid = case.meta["hyper"], tuple(case.meta["hyper"]["grid"])
    assert hyper["min_block_area"] == (min(grid) // 3) ** 2
    assert hyper["attempts"] == TRIES
    assert abs(hyper["aspect"][0] - exp(ASPECT[0])) < 1e-12
    deviations = [
        compare(f"mask {i}", _replayed_block(draws, grid), case["masks"][i])
        for i, draws in enumerate(case.meta["draws"])
    ]
    ours = _our_counts(hyper, grid, len(case["counts_3000"]))
    return [
        *deviations,
        Deviation("Kolmogorov-Smirnov of counts", _ks(ours, case["counts_3000"]), _ks_limit(len(ours))),
    ]


def _replayed_block(draws: list, grid: tuple[int, int]) -> Tensor:
    """The mask that the logged calls of Python's random make: draws of the ratio, the choice, then tries."""
    choice = next(i for i, call in enumerate(draws) if call[0] == "choice")
    budget = torch.tensor([draws[choice][2] * grid[0] * grid[1]], dtype=torch.float64)
    tries: list[list[float]] = []
    for name, bounds, value in draws[choice + 1 :]:
        low, high = bounds
        if name == "uniform":
            if not tries or len(tries[-1]) != 1:
                tries.append([])
            tries[-1].append((value - low) / (high - low))
        else:  # randint: any draw inside its cell
            tries[-1].append((value - low + 0.5) / (high - low + 1))
    table = torch.full((1, max(1, len(tries)), 4), 0.5, dtype=torch.float64)
    for i, row in enumerate(tries):
        table[0, i, : len(row)] = torch.tensor(row, dtype=torch.float64)
    return block_masks(table, budget if tries else budget * 0, grid)[0]


def _our_counts(hyper: dict, grid: tuple[int, int], rows: int) -> Tensor:
    """How much our own masks hide, drawn an image from the case's lists of ratios and spreads."""
    first, *others = (
        {"ratio": mean, "spread": spread}
        for mean, spread in zip(hyper["pred_ratio"], hyper["pred_ratio_var"])
    )
    mask = Mask(strategy=BlockStrategy(), per="image", others=others, **first)
    who, now = torch.arange(rows), Progress(0, 1, 1)
    drawn = mask.draw(torch.zeros_like(who), who, views=[0], grid=grid, progress=now, rng=Rng(0, 0))
    return drawn.hidden[0].sum(1)


def _ks(one: Tensor, other: Tensor) -> float:
    """The largest distance between two empirical distribution functions."""
    values = torch.cat([one, other]).unique()
    shares = [(sample[:, None] <= values).double().mean(0) for sample in (one, other)]
    return float((shares[0] - shares[1]).abs().max())


def _ks_limit(count: int, alpha: float = 1e-3) -> float:
    """The critical value of the two-sample Kolmogorov-Smirnov test at `alpha`, for equal sizes."""
    return float((-torch.tensor(alpha / 2).log() / count).sqrt())
