"""Positions at other sizes follow the official rule."""

import pytest
import torch
from torch.nn.functional import interpolate

from raymask.positions import axis_matrix, resample


def table(rows, columns):
    return torch.randn(rows * columns, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("grid", [(6, 6), (14, 13), (16, 16), (3, 20), (37, 1)])
@pytest.mark.parametrize("native", [(14, 14), (4, 4), (7, 3)])
def test_two_matrices_say_what_bicubic_interpolation_by_factor_says(native, grid):
    positions = table(*native)
    factor = ((grid[0] + 0.1) / native[0], (grid[1] + 0.1) / native[1])
    image = positions.T.reshape(1, 5, *native)
    expected = interpolate(image, scale_factor=factor, mode="bicubic", align_corners=False)
    assert expected.shape[-2:] == grid
    torch.testing.assert_close(
        resample(positions, native, grid), expected[0].flatten(1).T, rtol=0, atol=1e-12
    )


def test_the_native_grid_is_untouched_and_its_transpose_is_not():
    positions = table(4, 2)
    assert resample(positions, (4, 2), (4, 2)) is positions
    assert not torch.allclose(resample(positions, (4, 2), (2, 4)), positions)


def test_every_place_takes_shares_that_sum_to_one():
    sums = axis_matrix(14, 37, torch.device("cpu")).sum(1)
    torch.testing.assert_close(sums, torch.ones(37, dtype=torch.float64))


def test_autocast_does_not_round_the_table():
    positions = table(4, 4).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        moved = resample(positions, (4, 4), (3, 3))
    assert moved.dtype == torch.float32
    torch.testing.assert_close(moved, resample(positions, (4, 4), (3, 3)), rtol=0, atol=0)
    moved.sum().backward()
    assert positions.grad.sum().item() == pytest.approx(45, abs=1e-4)
