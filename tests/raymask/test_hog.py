"""HOG targets beyond the golden cases."""

from math import floor

import pytest
import torch

from raymask.hog import hog_cells, hog_target, orientations
from raymask.targets import Hog


def test_orientations_are_exact_for_all_integer_gradients():
    edge = 255
    down, right = torch.meshgrid(*[torch.arange(-edge, edge + 1, dtype=torch.float64)] * 2, indexing="ij")
    angle = torch.rad2deg(torch.atan2(down, right)) % 180
    expected = (angle / 20).floor().to(torch.uint8)
    moving = (down != 0) | (right != 0)
    got = orientations(down.float(), right.float())
    assert torch.equal(got[moving], expected[moving])


def test_a_vertical_edge_votes_for_the_horizontal_gradient():
    image = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    image[..., 8:] = 100
    cells = hog_cells(image)
    assert cells.shape == (1, 3, 2, 2, 9)
    # Two columns of eight pixels see the step, one on each side of it: 8 * 100 / 64 a cell.
    assert torch.allclose(cells[..., 0], torch.full((1, 3, 2, 2), 12.5))
    assert not cells[..., 1:].any()


def test_gradients_are_those_of_a_naive_count():
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    pixels, expected = image.double(), torch.zeros(3, 9, dtype=torch.float64)
    for channel in range(3):
        for y in range(8):
            for x in range(8):
                down = (
                    pixels[0, channel, y + 1, x] - pixels[0, channel, y - 1, x]
                    if 0 < y < 7
                    else torch.tensor(0.0)
                )
                right = (
                    pixels[0, channel, y, x + 1] - pixels[0, channel, y, x - 1]
                    if 0 < x < 7
                    else torch.tensor(0.0)
                )
                angle = float(torch.rad2deg(torch.atan2(down, right)) % 180)
                expected[channel, floor(angle / 20)] += float(torch.hypot(down, right)) / 64
    assert torch.allclose(hog_cells(image)[0, :, 0, 0].double(), expected, atol=1e-4)


def test_flat_patches_have_targets_of_zero():
    assert not hog_target(torch.full((2, 3, 32, 32), 77, dtype=torch.uint8)).any()


def test_cells_that_do_not_tile_a_patch_are_refused():
    with pytest.raises(ValueError, match="HOG cells of 8 pixels do not tile patches of 12 pixels"):
        Hog().width(12)
