"""Masks chosen by attention and by blocks, beyond the golden cases."""

import pytest
import torch

from raymask.masks import Mask
from raymask.masks.attention import AttentionStrategy, mix_ranks, revealed
from raymask.masks.block import BlockStrategy
from raymask.masks.strategy import Guide
from raymask.progress import Progress
from raymask.streams import Rng, uniforms

ROWS, GRID = 40, (14, 14)
PATCHES = GRID[0] * GRID[1]


def guide(ratio=0.3, *, scores=None, hint_ratios=0.0, grid=GRID, seed=0) -> Guide:
    rng = Rng(seed=seed, step=0)
    keys = rng.per_sample("mask", torch.zeros(ROWS, dtype=torch.int64), torch.arange(ROWS))
    ratios = torch.full((ROWS,), ratio, dtype=torch.float64)
    return Guide(keys, ratios, grid, Progress(0, 1, 1), scores=scores, hint_ratios=hint_ratios)


def attention(seed=1) -> torch.Tensor:
    keys = Rng(seed=seed, step=0).per_sample("a", torch.zeros(ROWS, dtype=torch.int64), torch.arange(ROWS))
    return uniforms(keys, PATCHES).float()


def mean_score(hidden, scores):
    return float((scores * hidden).sum() / hidden.sum())


def test_guidance_moves_the_mask_from_chance_to_attention():
    scores = attention()
    masks = [AttentionStrategy(guidance=g).hide(guide(scores=scores)) for g in (0, 0.3, 0.6, 1)]
    means = [mean_score(hidden, scores) for hidden in masks]
    assert means == sorted(means) and abs(means[0] - 0.5) < 0.03
    assert means[-1] == pytest.approx(scores.topk(int(PATCHES * 0.3)).values.mean().item(), abs=1e-6)


def test_low_hides_the_other_end_and_both_hide_the_truncated_count():
    scores = attention()
    high, low = (AttentionStrategy(prefer=p).hide(guide(scores=scores)) for p in ("high", "low"))
    assert not (high & low).any()
    assert (high.sum(1) == 58).all() and (low.sum(1) == 58).all()


def test_equal_scores_hide_the_lowest_places_and_full_guidance_ignores_the_noise():
    flat = torch.zeros(ROWS, PATCHES)
    hidden = AttentionStrategy().hide(guide(0.1, scores=flat))
    assert hidden[:, :19].all() and not hidden[:, 19:].any()


def test_hint_shows_patches_of_the_pool_and_only_those():
    scores = attention()
    high = AttentionStrategy().hide(guide(scores=scores))
    hint = AttentionStrategy(reveal_pool=0.1).hide(guide(scores=scores, hint_ratios=0.4))
    shown = high & ~hint
    assert not (hint & ~high).any()
    assert (shown.sum(1) == int(0.1 * 0.4 * PATCHES)).all()
    pool = scores >= scores.topk(int(PATCHES * 0.1)).values[:, -1:]
    assert (shown <= pool).all()
    assert len(shown.float().unique(dim=0)) > ROWS // 2  # rows draw on their own


def test_a_row_shows_the_share_of_its_own_ratio_where_ratios_are_drawn_for_each_image():
    samples = torch.arange(ROWS)
    given = {"ratio": 0.3, "spread": 0.15, "per": "image"}
    high, hint = (
        Mask(strategy={"kind": "attention", "reveal_pool": pool}, **given).draw(
            samples * 0,
            samples,
            views=(0,),
            grid=GRID,
            progress=Progress(0, 1, 1),
            rng=Rng(seed=0, step=0),
            scores=attention()[None],
        )
        for pool in (0.0, 0.1)
    )
    hidden, shown = high.hidden[0].sum(1), (high.hidden & ~hint.hidden)[0].sum(1)
    # int(ratio * patches) are hidden, so that the ratio is known to within one patch.
    assert (shown >= (0.1 * hidden).long()).all() and (shown <= (0.1 * (hidden + 1)).long()).all()
    assert len(shown.unique()) > 3


def test_a_batch_shows_one_share_in_all_rows_where_it_has_one_ratio():
    scores = attention()
    high, hint = (
        AttentionStrategy(reveal_pool=p).hide(guide(scores=scores, hint_ratios=0.45)) for p in (0, 0.1)
    )
    assert (high & ~hint).sum(1).unique().tolist() == [int(0.1 * 0.45 * PATCHES)]


def test_a_reveal_that_truncates_to_nothing_reveals_nothing():
    assert not revealed(attention(), attention(2), 0.1, 0.004).any()


def test_mixed_ranks_keep_the_scale_of_zero_to_one():
    mixed = mix_ranks(attention(), attention(3).double(), 0.5)
    assert mixed.min() >= 0 and mixed.max() <= 1


@pytest.mark.parametrize("grid", [(14, 14), (4, 4), (12, 20)])
def test_blocks_never_exceed_the_budget_and_often_come_near(grid):
    hidden = BlockStrategy().hide(guide(0.4, grid=grid))
    counts = hidden.sum(1)
    assert hidden.shape == (ROWS, grid[0] * grid[1])
    assert (counts <= 0.4 * grid[0] * grid[1]).all()
    assert counts.double().mean() > 0.3 * grid[0] * grid[1]


def test_a_row_of_ratio_zero_stays_whole():
    assert not BlockStrategy().hide(guide(0.0)).any()


def test_blocks_lie_together():
    """A hidden patch has more hidden neighbours than under random masks of the same count."""
    hidden = BlockStrategy().hide(guide(0.4)).view(ROWS, *GRID).double()
    together = (hidden[:, 1:] * hidden[:, :-1]).sum() / hidden.sum()
    assert together > 0.6  # random masks: about 0.4
