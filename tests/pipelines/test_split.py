"""The promises of the held-out split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.split import hold_out

LABELS = st.lists(st.integers(-1, 5), min_size=2, max_size=200).map(lambda x: np.array(x, dtype=np.int64))


@given(labels=LABELS, data=st.data(), seed=st.integers(0, 2**40))
@settings(deadline=None)
def test_the_split_is_exact_disjoint_and_in_proportion(labels, data, seed):
    count = data.draw(st.integers(1, len(labels) - 1))
    kept, held = hold_out(labels, count, seed=seed)
    assert len(held) == count
    assert sorted([*kept, *held]) == list(range(len(labels)))
    for label in np.unique(labels):
        ideal = (labels == label).sum() * count / len(labels)
        assert abs((labels[held] == label).sum() - ideal) < 1


def test_a_fifth_of_ten_thousand_is_two_thousand_with_a_fifth_of_each_class():
    labels = np.repeat(np.arange(10), 1000)
    kept, held = hold_out(labels, 0.2, seed=0)
    assert (len(kept), len(held)) == (8000, 2000)
    assert np.bincount(labels[held]).tolist() == [200] * 10


def test_seeds_hold_out_others():
    labels = np.zeros(1000, dtype=np.int64)
    one, again, two = (set(hold_out(labels, 0.5, seed=seed)[1].tolist()) for seed in (0, 0, 1))
    assert one == again and len(one & two) < 300


@pytest.mark.parametrize("share", [0.001, 0.999, 10, 11, 2.5])
def test_a_side_without_images_is_refused(share):
    with pytest.raises(ValueError, match="cannot be held out"):
        hold_out(np.zeros(10, dtype=np.int64), share, seed=0)
