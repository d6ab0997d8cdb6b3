"""Targets of masked prediction and the losses on them."""

import pytest
import torch

from pipelines.crops import IMAGENET_MEAN, IMAGENET_STD
from raymask.targets import (
    Hog,
    Pixels,
    distance,
    hidden_loss,
    levels,
    normalised,
    patchify,
    visible_loss,
)

COLOURS = {"mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def normal(images):
    mean, std = (torch.tensor(c).view(1, 3, 1, 1) for c in (IMAGENET_MEAN, IMAGENET_STD))
    return (images.float() / 255 - mean) / std


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_level_survives_normalisation_and_back(dtype):
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    assert torch.equal(levels(normal(every).to(dtype), IMAGENET_MEAN, IMAGENET_STD), every)


def test_levels_of_overshooting_crops_stay_within_eight_bits():
    images = normal(torch.zeros(1, 3, 8, 8)) - 3
    assert not levels(images, IMAGENET_MEAN, IMAGENET_STD).any()


def test_patchify_keeps_rows_columns_and_channels_apart():
    images = torch.arange(2 * 3 * 4 * 6).view(2, 3, 4, 6).float()
    patches = patchify(images, 2)
    assert patches.shape == (2, 6, 12)
    # Second patch of the second row: rows 2 and 3, columns 2 and 3, channels last.
    assert torch.equal(patches[1, 4], images[1, :, 2:4, 2:4].permute(1, 2, 0).flatten())


def test_normalised_patches_have_no_mean_and_unit_variance():
    patches = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0)) * 7 + 3
    variance, mean = torch.var_mean(normalised(patches), dim=-1)
    assert mean.abs().max() < 1e-5
    assert (variance - 1).abs().max() < 1e-4


@pytest.mark.parametrize("target", [Hog(), Hog(cell=4), Pixels(), Pixels(normalise=False)])
def test_a_target_has_the_width_that_it_declares(target):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert target(images, 8, **COLOURS).shape == (2, 16, target.width(8))


@pytest.mark.parametrize("kind", ["l2", "smooth_l1"])
def test_a_perfect_visible_prediction_costs_nothing_only_if_aligned(kind):
    target = torch.randn(2, 9, 4, generator=torch.Generator().manual_seed(1))
    visible = torch.tensor([[7, 1, 4], [3, 8, 0]])
    predicted = target.gather(1, visible[:, :, None].expand(-1, -1, 4))
    assert visible_loss(predicted, target, visible, kind) == 0
    assert visible_loss(predicted, target, visible.sort(dim=1).values, kind) > 0.1


def test_the_hidden_loss_ignores_what_is_visible():
    target = torch.zeros(1, 4, 3)
    predicted = torch.tensor([1.0, 2.0, 100.0, 100.0])[None, :, None].expand(1, 4, 3)
    hidden = torch.tensor([[True, True, False, False]])
    assert hidden_loss(predicted, target, hidden, "l2") == pytest.approx(2.5)


def test_distances_of_half_precision_predictions_are_float32():
    predicted = torch.full((1, 2, 3), 1.0, dtype=torch.bfloat16)
    assert distance(predicted, torch.zeros(1, 2, 3), "smooth_l1").dtype == torch.float32
    assert distance(predicted, torch.zeros(1, 2, 3), "smooth_l1")[0, 0] == 0.25  # within beta = 2
