"""Disjoint masks of any number of views; the released two are held by the golden cases."""

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint, disjoint_order, hidden_from, plan, unit_patches
from raymask.schedules import Linear
from tests.raymask.autoencoding import dmjd

# v: views   b: images   s: units


def masks(draws, counts):
    return hidden_from(disjoint_order(draws, counts)[:, :, : counts.visible], counts.units)


def uniform(views, images, units, seed=0):
    return torch.rand(views, images, units, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 64), st.floats(0.1, 0.9), st.floats(0.0, 1.0), st.integers(1, 5), st.integers(0, 99))
def test_every_view_hides_the_same_count_and_together_the_planned_share(units, ratio, more, views, seed):
    rate = ratio + more * (1 - ratio)
    if int(units * (1 - ratio)) == 0:
        return
    counts = plan(units, ratio, rate, views)
    hidden = masks(uniform(views, 3, units, seed), counts)
    assert (hidden.sum(2) == counts.hidden).all()
    assert (hidden.any(0).sum(1) == sum(counts.fresh)).all()
    for view in range(1, views):
        earlier = hidden[:view].any(0)
        assert ((hidden[view] & ~earlier).sum(1) == counts.fresh[view]).all()


@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.5])
def test_views_are_disjoint_as_long_as_they_fit_into_the_image(ratio):
    counts = plan(100, ratio, 1.0, 2)
    first, second = masks(uniform(2, 4, 100), counts)
    assert not (first & second).any()


@pytest.mark.parametrize("ratio", [0.6, 0.75, 0.9])
def test_two_views_that_cannot_be_disjoint_still_hide_the_whole_image(ratio):
    counts = plan(100, ratio, 1.0, 2)
    first, second = masks(uniform(2, 4, 100), counts)
    assert (first | second).all()


def test_as_many_views_as_needed_reach_the_prediction_rate():
    for ratio, rate in product([0.1, 0.25, 0.3, 0.6], [0.6, 0.8, 1.0]):
        counts = Disjoint(unit=1, prediction_rate=rate).plan(ratio, (20, 20))
        hidden = masks(uniform(counts.views, 2, 400), counts)
        assert hidden.any(0).float().mean() >= rate - 0.01
        assert counts.views == -(-round(100 * rate) // round(100 * ratio))


def test_every_unit_is_hidden_equally_often_in_every_view():
    counts = plan(12, 0.5, 1.0, 3)
    hidden = masks(uniform(3, 4000, 12), counts)
    assert (hidden.float().mean(1) - 0.5).abs().max() < 0.04


def test_units_expand_corner_by_corner_to_the_patches_that_they_cover():
    patches = unit_patches(torch.tensor([[0, 3]]), (4, 4), 2)
    assert patches.tolist() == [[0, 10, 1, 11, 4, 14, 5, 15]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((16, 0.6, 0.5, 2), "prediction rate 0.5 is below the mask ratio 0.6"),
        ((16, 0.0, 1.0, 2), "hides nothing or everything"),
        ((16, 1.0, 1.0, 2), "hides nothing or everything"),
        ((4, 0.9, 1.0, 2), "leaves no visible unit of 4"),
    ],
)
def test_impossible_masks_are_refused_in_a_sentence(arguments, words):
    with pytest.raises(ValueError, match=words):
        plan(*arguments)


@pytest.mark.parametrize(
    ("views", "ratio", "rate", "needed"), [(2, 0.4, 1.0, 3), (1, 0.75, 1.0, 2), (3, 0.2, 0.7, 4)]
)
def test_fewer_views_than_the_prediction_rate_needs_are_refused(views, ratio, rate, needed):
    short = Disjoint(views=views, unit=1, prediction_rate=rate)
    words = f"views={views} at a mask ratio of {ratio} hide at most .* choose {needed} views"
    with pytest.raises(ValueError, match=words):
        short.plan(ratio, (14, 14))
    with pytest.raises(ValueError, match=words):  # before the first step, at the lowest ratio of a schedule
        schedule = Linear(start=0.9, end=ratio)
        dmjd(Mask(strategy=short, kind="drop", ratio=schedule))
    enough = Disjoint(views=needed, unit=1, prediction_rate=rate)
    assert sum(enough.plan(ratio, (20, 20)).fresh) == round(400 * rate)


def test_views_without_a_prediction_rate_hide_as_much_as_they_can():
    for views, ratio, share in ((1, 0.75, 0.75), (2, 0.4, 0.8), (2, 0.6, 1.0), (None, 0.3, 1.0)):
        strategy = Disjoint(views=views, unit=1)
        assert sum(strategy.plan(ratio, (20, 20)).fresh) == 400 * share
        assert strategy.reached(ratio) == share


def test_units_that_do_not_tile_the_grid_are_refused():
    with pytest.raises(ValueError, match="units of 2x2 patches do not tile a grid of 7x7"):
        Disjoint(unit=2).plan(0.6, (7, 7))
