"""The promises of the sample order."""

import threading
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.order import LANES, Order, shuffled
from pipelines.reading import Reading

SIZES = st.lists(st.integers(0, 30), min_size=1, max_size=90).filter(any)
WINDOWS = st.integers(1, 40)
GOLDEN_PERMUTATION = [1, 5, 7, 0, 4, 6, 3, 2]
GOLDEN_ORDER = [1, 7, 8, 2, 6, 10, 0, 5, 11, 3, 4, 9]


def stretch(order: Order, epochs: int = 3) -> np.ndarray:
    return np.arange(epochs * len(order))


@given(sizes=SIZES, window=WINDOWS, seed=st.integers(-(2**70), 2**70))
@settings(deadline=None)
def test_every_sample_comes_exactly_once_an_epoch(sizes, window, seed):
    order = Order(sizes, seed, window)
    samples, epochs = order.locate(stretch(order))
    assert (epochs == stretch(order) // len(order)).all()
    for epoch in range(3):
        assert sorted(samples[epochs == epoch]) == list(range(len(order)))


@given(sizes=SIZES, window=WINDOWS, batch=st.integers(1, 50), world=st.integers(1, 64), data=st.data())
@settings(deadline=None)
def test_batches_ranks_and_the_order_of_asking_change_nothing(sizes, window, batch, world, data):
    whole = stretch(Order(sizes, 5, window))
    expected, _ = Order(sizes, 5, window).locate(whole)
    order, found = Order(sizes, 5, window), np.full(len(whole), -1)
    pieces = [
        whole[i : i + batch][(whole[i : i + batch] % world) == r]
        for i in range(0, len(whole), batch)
        for r in range(world)
    ]
    for piece in data.draw(st.permutations(pieces)) if len(pieces) < 40 else pieces:
        found[piece] = order.locate(piece)[0]
    assert (found == expected).all()


@pytest.mark.parametrize("start", [0, 1, 999, 1000, 12_345, 10**12])
def test_a_resumed_run_continues_the_sequence(start):
    sizes, positions = [100, 0, 300, 250], np.arange(start, start + 512)
    expected, _ = Order(sizes, 1, 64).locate(positions)
    assert (Order(sizes, 1, 64).locate(positions[200:])[0] == expected[200:]).all()


@given(
    sizes=st.lists(st.integers(1, 20), min_size=64, max_size=130), world=st.sampled_from([2, 4, 16, 32, 64])
)
@settings(deadline=None, max_examples=30)
def test_a_rank_whose_world_divides_the_lanes_reads_only_its_lanes_shards(sizes, world):
    order = Order(sizes, 3, 16)
    starts = np.cumsum([0, *sizes])
    for epoch in range(2):
        positions = np.arange(epoch * len(order), (epoch + 1) * len(order))
        samples, _ = order.locate(positions)
        shards = np.searchsorted(starts, samples, side="right") - 1
        for rank in range(world):
            own = {int(s) for lane in range(rank, LANES, world) for s in order.lane_shards(epoch, lane)}
            assert set(shards[positions % world == rank].tolist()) <= own


def test_as_many_lanes_as_ranks_leave_each_rank_shards_that_no_other_one_reads():
    sizes = np.full(200, 6)
    order = Order(sizes, 3, 4, lanes=100)
    positions = np.arange(len(order))
    samples, _ = order.locate(positions)
    assert sorted(samples.tolist()) == positions.tolist()
    readers = [set((samples[positions % 100 == rank] // 6).tolist()) for rank in range(100)]
    assert all(len(shards) == 2 for shards in readers) and len(set().union(*readers)) == 200
    assert (
        Order(sizes, 3, 4, lanes=64).locate(positions)[0] == Order(sizes, 3, 4).locate(positions)[0]
    ).all()


@given(sizes=SIZES)
@settings(deadline=None)
def test_the_lanes_of_an_epoch_cover_all_shards_with_few_shared(sizes):
    order = Order(sizes, 9, 8)
    parts = [order.lane_shards(1, lane).tolist() for lane in range(order.lanes)]
    full = {shard for shard, size in enumerate(sizes) if size}
    assert {shard for part in parts for shard in part} == full
    assert sum(len(part) for part in parts) <= len(full) + order.lanes - 1


@given(sizes=st.lists(st.integers(50, 90), min_size=2, max_size=70), window=st.integers(1, 30))
@settings(deadline=None, max_examples=30)
def test_a_lane_reads_one_window_after_the_other(sizes, window):
    order = Order(sizes, 2, window)
    positions = np.arange(len(order))
    samples, _ = order.locate(positions)
    for lane in range(order.lanes):
        walked = np.concatenate([np.arange(sizes[s]) + sum(sizes[:s]) for s in order.lane_shards(0, lane)])
        mine = samples[positions % order.lanes == lane]
        first = int(np.flatnonzero(np.isin(walked, mine))[0])
        walked = walked[first : first + len(mine)]
        for begin in range(0, len(mine), window):
            assert sorted(mine[begin : begin + window]) == sorted(walked[begin : begin + window])


def test_epochs_and_seeds_give_different_orders():
    sizes = [100] * 10
    one, two = Order(sizes, 1, 200).locate(stretch(Order(sizes, 1, 200)))[0].reshape(3, 1000)[:2]
    other = Order(sizes, 2, 200).locate(np.arange(1000))[0]
    assert (one == two).mean() < 0.05 and (one == other).mean() < 0.05


def test_a_batch_mixes_many_shards():
    sizes = [1000] * 100
    samples, _ = Order(sizes, 0, 1000).locate(np.arange(256 * 100))
    distinct = [len(np.unique(batch // 1000)) for batch in samples.reshape(-1, 256)]
    assert np.mean(distinct) > 60  # WebDataset's shuffle(5000) reaches 21.6 of 100


def test_threads_that_ask_at_once_get_the_same_answers():
    order, positions = Order([50] * 70, 4, 8), np.arange(7000)
    expected, _ = Order([50] * 70, 4, 8).locate(positions)
    found: dict[int, np.ndarray] = {}

    def ask(number: int) -> None:
        parts = np.random.default_rng(number).permutation(positions)
        found[number] = np.empty(7000, dtype=np.int64)
        for piece in np.split(parts, 70):
            found[number][piece] = order.locate(piece)[0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((found[number] == expected).all() for number in range(4))


@given(
    sizes=SIZES,
    window=WINDOWS,
    batch=st.integers(1, 50),
    worlds=st.lists(st.integers(1, 64), min_size=2, max_size=4),
    data=st.data(),
)
@settings(deadline=None)
def test_a_run_that_changes_its_ranks_wherever_it_is_resumed_sees_the_same_global_batches(
    sizes, window, batch, worlds, data
):
    steps = 2 * sum(sizes) // batch + 1
    expected = Order(sizes, 5, window).locate(np.arange(steps * batch))[0].reshape(steps, batch)
    cuts = sorted(
        data.draw(st.lists(st.integers(0, steps), min_size=len(worlds) - 1, max_size=len(worlds) - 1))
    )
    for world, begin, end in zip(worlds, [0, *cuts], [*cuts, steps]):
        order = Order(sizes, 5, window)  # each part is another process: it remembers nothing
        for step in range(begin, end):
            positions = np.arange(step * batch, (step + 1) * batch)
            found = np.full(batch, -1)
            for rank in range(world):
                mine = positions % world == rank
                found[mine] = order.locate(positions[mine])[0]
            assert (found == expected[step]).all()


@pytest.mark.parametrize(
    ("shards", "each", "seconds"), [(1_281, 1_000, 0.1), (200_000, 10_000, 1.0)], ids=["ImageNet", "LAION"]
)
def test_a_seek_is_quick_at_any_size(shards, each, seconds):
    sizes, position = np.full(shards, each), int(3.99 * shards * each)
    Order([1], 0, 1).locate(np.arange(1))  # compiles the streams
    times = []
    for _ in range(3):
        begun = time.process_time()
        order = Order(sizes, 7, 4096)
        samples, epochs = order.locate(np.arange(position, position + 256))
        next(Reading(order, rank=3, world=8).needs(position))
        times.append(time.process_time() - begun)
    assert len(set(samples.tolist())) == 256 and set(epochs.tolist()) == {3}
    assert min(times) < seconds


def test_memory_is_the_same_after_any_number_of_shards():
    order, held = Order([1000] * 20_000, 0, 64), []
    tracemalloc.start()
    for epoch in range(6):
        for share in range(50):
            position = (epoch * 50 + share) * len(order) // 50
            order.locate(np.arange(position, position + 256))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[-1] < 1.05 * held[3] and held[-1] < 8e6


def test_memory_does_not_grow_with_what_was_seen():
    order = Order([40] * 80, 0, 5)
    for epoch in range(30):
        order.locate(np.arange(epoch * len(order), (epoch + 1) * len(order), 7))
    assert len(order._windows) <= 2 * order.lanes
    assert len(order._epochs) <= 3


@given(sizes=SIZES, data=st.data())
@settings(deadline=None)
def test_replacements_walk_the_shard_and_then_everything(sizes, data):
    order = Order(sizes, 0, 4)
    sample = data.draw(st.integers(0, len(order) - 1))
    starts = np.cumsum([0, *sizes])
    shard = int(np.searchsorted(starts, sample, side="right")) - 1
    tried = [order.replacement(sample, attempt) for attempt in range(1, len(order) + 1)]
    near = tried[: sizes[shard] - 1]
    assert sorted([sample, *near]) == list(range(starts[shard], starts[shard + 1]))
    assert set(tried) | {sample} == set(range(len(order)))


def test_a_permutation_of_a_stream_is_what_it_was_when_runs_were_saved():
    assert shuffled(np.uint64(7), 8).tolist() == GOLDEN_PERMUTATION
    assert Order([3, 4, 5], 11, 4).locate(np.arange(12))[0].tolist() == GOLDEN_ORDER


@pytest.mark.parametrize("sizes", [[], [0, 0]])
def test_an_order_of_nothing_is_refused(sizes):
    with pytest.raises(ValueError, match="no images"):
        Order(sizes, 0, 1)


def test_wrong_windows_and_positions_are_refused():
    with pytest.raises(ValueError, match="window is 0"):
        Order([1], 0, 0)
    with pytest.raises(ValueError, match="position -1"):
        Order([1], 0, 1).locate(np.array([-1]))
