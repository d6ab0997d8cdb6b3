"""Repeated augmentation: the order of the official sampler."""

import numpy as np
import pytest

from pipelines.repeats import repeated_order

ORDER = np.random.default_rng(0).permutation(1000).astype(np.int64)


def test_an_epoch_is_as_long_as_without_repeats_and_holds_each_image_as_often_as_told():
    row = repeated_order(ORDER, repeats=3)
    assert len(row) == 768
    assert np.array_equal(row, np.repeat(ORDER[:256], 3))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_repeats_of_an_image_fall_on_different_ranks(world):
    rows = [repeated_order(ORDER, repeats=2, rank=rank, world=world, unit=1) for rank in range(world)]
    assert all(len(set(row)) == len(row) == 1000 // world for row in rows)
