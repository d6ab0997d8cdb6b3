"""Which patches a network keeps."""

import pytest
import torch

from raymask.masks.select import (
    keep_count,
    keep_highest,
    map_grid,
    patch_scores,
    with_random_share,
)
from raymask.methods.keep import Keep
from raymask.progress import Progress
from raymask.schedules import Linear

START = Progress(step=0, steps=10, steps_per_epoch=5)


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    ("patches", "ratio", "count"),
    [
        (196, 0.5, 98),
        (196, 0.25, 49),
        (196, 0.4, 80),
        (196, 0.75, 144),
        (256, 0.75, 192),
        (256, 0.5, 128),
        (64, 0.4, 26),
        (64, 0.001, 1),
        (49, 1.0, 49),
    ],
)
def test_a_keep_ratio_means_the_papers_counts(patches, ratio, count):
    assert keep_count(patches, ratio) == count


@pytest.mark.parametrize("ratio", [0.0, -0.5, 1.01])
def test_a_keep_ratio_that_is_no_share_is_refused(ratio):
    with pytest.raises(ValueError, match="keep ratio"):
        keep_count(196, ratio)


def test_the_highest_scores_are_kept_in_order_of_place():
    scores = draws(3, 20)
    kept = keep_highest(scores, 7)
    assert torch.equal(kept, kept.sort(1).values)
    for row, places in zip(scores, kept):
        assert set(places.tolist()) == set(row.topk(7).indices.tolist())


def test_the_lowest_scores_are_the_others_of_the_highest():
    scores = draws(3, 20)
    high, low = keep_highest(scores, 13), keep_highest(-scores, 7)
    assert torch.equal(torch.cat([high, low], 1).sort(1).values, torch.arange(20).expand(3, 20))


def test_ties_go_to_the_lower_place():
    scores = torch.tensor([[0.5, 0.7, 0.5, 0.5, 0.1]])
    assert keep_highest(scores, 3).tolist() == [[0, 1, 2]]
    assert keep_highest(-scores, 2).tolist() == [[0, 4]]


def test_a_count_above_the_patches_is_refused_with_what_is_possible():
    with pytest.raises(ValueError, match="cannot keep 21 patches: the network has 20, so keep 1 to 20"):
        keep_highest(draws(1, 20), 21)


def test_scores_are_the_head_mean_of_the_class_row_without_prefix_tokens():
    attention = draws(2, 3, 11, 11)
    expected = sum(attention[:, head, 0, 2:] for head in range(3)) / 3
    assert torch.allclose(patch_scores(attention, prefix=2), expected)
    assert patch_scores(attention.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize(("share", "sure"), [(0.0, 10), (0.2, 8), (0.5, 5), (1.0, 0)])
def test_a_random_share_leaves_the_best_and_draws_the_rest_from_all_others(share, sure):
    scores, counts = draws(1, 40), torch.zeros(40)
    best = set(scores[0].topk(sure).indices.tolist())
    for seed in range(200):
        kept = keep_highest(with_random_share(scores, draws(1, 40, seed=seed), count=10, share=share), 10)
        assert best <= set(kept[0].tolist())
        counts[kept[0]] += 1
    others = [place for place in range(40) if place not in best]
    expected = 200 * (10 - sure) / len(others)
    assert all(abs(counts[place] - expected) <= 5 * max(1, expected**0.5) for place in others) or sure == 10


def test_scores_of_one_grid_are_read_off_at_the_centres_of_another():
    columns = torch.arange(4.0).expand(4, 4).reshape(1, 16)
    halved = map_grid(columns, source=(4, 4), target=(2, 2)).reshape(2, 2)
    assert torch.allclose(halved, torch.tensor([[0.5, 2.5], [0.5, 2.5]]))
    doubled = map_grid(columns, source=(4, 4), target=(8, 8)).reshape(8, 8)
    assert torch.allclose(doubled[0], torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3.0]))


def test_equal_grids_need_no_mapping():
    scores = draws(2, 12)
    assert map_grid(scores, source=(3, 4), target=(3, 4)) is scores


def choose(keep: Keep, scores: torch.Tensor | None, *, seed: int = 0, source=(5, 8), target=(5, 8)):
    noise = draws(2, 3, target[0] * target[1], seed=seed)
    return keep.choose(scores, noise, source=source, target=target, progress=START)


def test_full_guidance_is_the_ranking_and_none_is_chance():
    scores = draws(3, 40)
    guided, blind = Keep(ratio=0.25), Keep(ratio=0.25, guidance=0.0)
    assert torch.equal(choose(guided, scores), keep_highest(scores, 10))
    assert torch.equal(choose(blind, scores), choose(blind, -scores))
    assert not torch.equal(choose(blind, scores), choose(blind, scores, seed=1))


def test_guidance_between_keeps_good_scores_more_often_than_chance_and_less_than_always():
    scores, hits = draws(3, 40), {}
    best = keep_highest(scores, 10)
    for guidance in (0.0, 0.5, 1.0):
        keep = Keep(count=10, guidance=guidance)
        rows = [choose(keep, scores, seed=seed) for seed in range(30)]
        hits[guidance] = sum(
            int(torch.isin(got, want).sum()) for kept in rows for got, want in zip(kept, best)
        )
    assert 30 * 30 == hits[1.0] > 1.1 * hits[0.5] > 1.3 * hits[0.0] > 0


def test_without_scores_chance_alone_decides():
    kept = choose(Keep(ratio=0.5, source="random"), None)
    assert kept.shape == (3, 20)
    assert not torch.equal(kept[0], kept[1])


def test_the_lowest_can_be_preferred():
    scores = draws(3, 40)
    assert torch.equal(choose(Keep(count=9, prefer="lowest"), scores), keep_highest(-scores, 9))


def test_a_count_is_of_the_teachers_grid():
    kept = choose(Keep(ratio=0.5), draws(3, 16), source=(4, 4), target=(6, 6))
    assert kept.shape == (3, 18) and kept.max() >= 16


def test_ratio_and_count_follow_their_schedules():
    keep = Keep(ratio=Linear(start=1.0, end=0.5))
    assert keep.is_partial
    assert [keep.amount(40, Progress(step=step, steps=10, steps_per_epoch=5)) for step in (0, 5)] == [40, 30]
    assert (
        Keep(count=Linear(start=10, end=20)).amount(40, Progress(step=5, steps=10, steps_per_epoch=5)) == 15
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"ratio": 0.5, "count": 3}, "same thing twice"),
        ({"ratio": 0.0}, "at least one patch"),
        ({"ratio": 1.5}, "a share lies between 0 and 1"),
        ({"guidance": -0.1}, "a share lies between 0 and 1"),
    ],
)
def test_a_keep_that_cannot_be_is_refused(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Keep(**given)


def test_grids_of_another_aspect_cannot_be_mapped():
    with pytest.raises(ValueError, match="4 x 4 patches and the teacher 4 x 8: grids of different aspect"):
        choose(Keep(ratio=0.5), draws(3, 16), source=(4, 4), target=(4, 8))


def test_grids_that_differ_are_refused_where_equal_ones_are_asked_for():
    with pytest.raises(ValueError, match="same grid"):
        choose(Keep(ratio=0.5, grids="equal"), draws(3, 16), source=(4, 4), target=(6, 6))
