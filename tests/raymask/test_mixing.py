"""Mixup, cutmix and random erasing."""

import numpy as np
import pytest
import torch
from timm.data.mixup import rand_bbox

from raymask.mixing import Erasing, Mixing, cut_in, erase, mix
from raymask.streams import Rng

LABELS = torch.tensor([0, 1, 2, 3])
IMAGES = torch.arange(4.0).reshape(4, 1, 1, 1).expand(4, 3, 16, 24).contiguous()


def mixed(step: int = 0, **settings: float) -> tuple[torch.Tensor, torch.Tensor]:
    return mix(IMAGES, LABELS, mixing=Mixing(**settings), classes=5, rng=Rng(seed=3, step=step))


def test_mixup_blends_images_and_targets_by_one_share():
    images, targets = mixed(mixup=0.8)
    share = targets[0, 0].item()
    assert 0 < share < 1
    assert torch.allclose(images, share * IMAGES + (1 - share) * IMAGES.flip(0))
    assert torch.allclose(targets, share * torch.eye(5)[LABELS] + (1 - share) * torch.eye(5)[LABELS.flip(0)])


def test_cutmix_weighs_targets_by_the_area_that_is_left():
    for step in range(20):
        images, targets = mixed(step, cutmix=1.0)
        left = (images[0, 0] == 0).double().mean().item()
        assert targets[0, 0].item() == pytest.approx(left, abs=1e-6)
        assert set(images[1].unique().tolist()) <= {1.0, 2.0}


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("centre", [(0.0, 0.0), (0.5, 0.5), (0.999, 0.2)])
def test_a_cut_box_stays_inside_and_tells_what_is_left(share, centre):
    images, left = cut_in(torch.zeros(1, 3, 10, 20), torch.ones(1, 3, 10, 20), share=share, centre=centre)
    assert left == pytest.approx(1 - images.mean().item())
    assert share != 1.0 or left == 1.0


@pytest.mark.parametrize("size", [(224, 224), (10, 21)])
def test_a_cut_box_is_timms_own_for_the_same_draws(size, monkeypatch):
    height, width = size
    draws, odd = np.random.default_rng(0), 0
    for share, row, column in zip(
        draws.beta(1, 1, 300), draws.integers(height, size=300), draws.integers(width, size=300)
    ):
        middles = iter([row, column])
        monkeypatch.setattr(np.random, "randint", lambda low, high, size, middles=middles: next(middles))
        top, bottom, left, right = rand_bbox((1, 3, *size), share)
        expected = torch.zeros(1, 3, *size)
        expected[..., top:bottom, left:right] = 1
        centre = ((row + 0.5) / height, (column + 0.5) / width)
        images, left_over = cut_in(
            torch.zeros(1, 3, *size), torch.ones(1, 3, *size), share=share, centre=centre
        )
        assert torch.equal(images, expected)
        assert left_over == 1 - (bottom - top) * (right - left) / (height * width)
        odd += (bottom - top) % 2
    assert 60 < odd < 240


def test_targets_are_smoothed_whether_mixed_or_not():
    _, targets = mixed(mixup=0.8, probability=0.0, smoothing=0.1)
    assert torch.allclose(targets, torch.full((4, 5), 0.02) + 0.9 * torch.eye(5)[LABELS])
    _, targets = mixed(mixup=0.8, smoothing=0.1)
    assert torch.allclose(targets.sum(1), torch.ones(4)) and targets.min() >= 0.02 - 1e-6


def test_mixing_switches_between_its_two_ways_as_often_as_told():
    def cuts(switch: float) -> int:
        settings = {"mixup": 0.8, "cutmix": 1.0, "switch": switch}
        return sum(len(mixed(step, **settings)[0][1].unique()) == 2 for step in range(60))

    # A box can miss every whole pixel or cover all; those draws look like no cut.
    assert cuts(0.0) == 0 and cuts(1.0) > 50 and 15 < cuts(0.5) < 45


def test_a_step_draws_the_same_again_and_another_step_does_not():
    assert torch.equal(mixed(5, mixup=0.8)[0], mixed(5, mixup=0.8)[0])
    assert not torch.equal(mixed(5, mixup=0.8)[0], mixed(6, mixup=0.8)[0])


KEYS = torch.arange(400) * 7919
GREY = torch.full((400, 3, 16, 24), 100.0)


def test_erasing_replaces_one_rectangle_by_noise_in_the_told_share_of_images():
    changed = (erase(GREY, KEYS, erasing=Erasing(probability=0.25)) != GREY).all(1)
    touched = changed.flatten(1).any(1)
    assert 70 < int(touched.sum()) < 130
    for mask in changed[touched]:
        rows, columns = mask.any(1), mask.any(0)
        assert torch.equal(mask, rows[:, None] & columns)  # a rectangle, and nothing else
        assert (rows.diff(prepend=torch.tensor([False])) & rows).sum() == 1
        share = mask.double().mean().item()
        assert 0.01 < share < 0.4


def test_the_noise_is_standard_normal():
    result = erase(GREY, KEYS, erasing=Erasing(probability=1.0))
    noise = result[result != 100.0]
    assert noise.numel() > 10_000
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_an_image_is_erased_the_same_in_any_batch():
    whole = erase(GREY, KEYS, erasing=Erasing(probability=0.5))
    assert torch.equal(erase(GREY[7:9], KEYS[7:9], erasing=Erasing(probability=0.5)), whole[7:9])


def test_nothing_is_erased_at_probability_zero():
    assert torch.equal(erase(GREY, KEYS, erasing=Erasing()), GREY)
