"""Which shards a rank reads and when: what `Reading` says is what `Order.locate` does."""

from itertools import islice

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.order import Order
from pipelines.reading import NEVER, Reading

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=90).filter(any)


@given(sizes=SIZES, window=st.integers(1, 40), world=st.integers(1, 64), data=st.data())
@settings(deadline=None, max_examples=60)
def test_the_shards_of_every_position_are_needed_by_it_and_not_before_their_turn(sizes, window, world, data):
    order = Order(sizes, 3, window)
    rank = data.draw(st.integers(0, world - 1))
    start = data.draw(st.integers(0, 2 * len(order)))
    reading = Reading(order, rank=rank, world=world)
    positions = np.arange(start, start + len(order))
    mine = positions[positions % world == rank]
    samples, _ = order.locate(mine)
    shards = np.searchsorted(np.cumsum(sizes), samples, side="right")
    needed: dict[int, list[int]] = {}
    begins = []
    for begin, shard in reading.needs(start):
        if begin > start + len(order):
            break
        needed.setdefault(shard, []).append(begin)
        begins.append(begin)
    assert begins == sorted(begins)
    for position, shard in zip(mine.tolist(), shards.tolist()):
        assert any(begin <= position < begin + reading.generation for begin in needed[shard])


@given(sizes=SIZES, window=st.integers(1, 40), share=st.floats(0, 3))
@settings(deadline=None, max_examples=60)
def test_the_next_use_of_a_shard_is_when_it_is_needed_next(sizes, window, share):
    order = Order(sizes, 3, window)
    reading, position = Reading(order, rank=0, world=1), int(share * len(order))
    first: dict[int, int] = {}
    for begin, shard in reading.needs(position):
        if begin >= (position // len(order) + 2) * len(order):
            break
        first.setdefault(shard, begin)
    uses = reading.next_uses(position)
    assert {shard: use for shard, use in enumerate(uses.tolist()) if use != NEVER} == first


def test_ranks_that_divide_the_lanes_fetch_their_own_shards_only():
    order = Order([8] * 128, 1, 8)
    ranks = [Reading(order, rank=rank, world=4) for rank in range(4)]
    found = [{shard for _, shard in islice(reading.needs(0), 32)} for reading in ranks]
    assert sum(map(len, found)) == 128 == len(set.union(*found))


def test_a_rank_without_images_reads_nothing_at_one_time():
    order = Order([2, 0, 0, 0], 1, 8)
    ones = np.ones(4, np.int64)
    assert [Reading(order, rank=rank, world=4).most_at_once(ones, 0) for rank in range(4)] == [1, 1, 0, 0]


def test_what_lanes_read_at_one_time_is_counted_in_bytes():
    sizes = [8] * 128
    order = Order(sizes, 1, 8)
    assert Reading(order, rank=0, world=1).most_at_once(np.full(128, 100), 0) == 64 * 100
    assert Reading(order, rank=0, world=4).most_at_once(np.full(128, 100), 0) == 16 * 100
    wide = Order(sizes, 1, 9)  # a window of nine images spans two shards
    assert Reading(wide, rank=0, world=1).most_at_once(np.full(128, 100), 0) == 64 * 200
