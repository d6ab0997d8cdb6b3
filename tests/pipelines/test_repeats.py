"""Repeated augmentation: the order of the official sampler, and a stream that follows it."""

import numpy as np
import pytest

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.order import Order
from pipelines.repeats import Repeated, epoch_length, repeated_order
from tests.pipelines.pictures import Memory, encoded, picture

ORDER = np.random.default_rng(0).permutation(1000).astype(np.int64)
SMALL = Crops(count=1, size=8, jitter=0.0, grey=0.0, blur=0.0, solarise=0.0)


def test_an_epoch_is_as_long_as_without_repeats_and_holds_each_image_as_often_as_told():
    row = repeated_order(ORDER, repeats=3)
    assert len(row) == 768
    assert np.array_equal(row, np.repeat(ORDER[:256], 3))


@pytest.mark.parametrize("world", [2, 3, 4])
def test_the_repeats_of_an_image_fall_on_different_ranks(world):
    rows = [repeated_order(ORDER, repeats=2, rank=rank, world=world, unit=1) for rank in range(world)]
    assert all(len(set(row)) == len(row) == 1000 // world for row in rows)


def stream(repeats: int, *, epoch: int = 0, sizes: tuple[int, ...] = (300, 400, 300)) -> tuple:
    """Samples and turns of one epoch of the stream."""
    repeated = Repeated(Order(sizes, 4, 64), repeats)
    return repeated.locate(np.arange(epoch * repeated.length, (epoch + 1) * repeated.length))


@pytest.mark.parametrize("sizes", [(1000,), (300, 400, 300), (10,) * 100])
@pytest.mark.parametrize("repeats", [2, 3, 5])
@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_rank_of_the_stream_reads_what_the_official_sampler_gives_it(world, repeats, sizes):
    for epoch in (0, 7):
        samples, _ = stream(repeats, epoch=epoch, sizes=sizes)
        chosen = samples[::repeats]
        rest = np.setdiff1d(np.arange(1000), chosen)
        assert len(chosen) + len(rest) == 1000  # nothing is chosen twice
        for rank in range(world):
            official = repeated_order(np.concatenate([chosen, rest]), repeats=repeats, rank=rank, world=world)
            assert (samples[rank::world] == official).all()


def test_each_epoch_draws_its_share_of_the_images_afresh_and_all_come_equally_often():
    counts = np.zeros(1000)
    for epoch in range(60):
        counts += np.bincount(stream(3, epoch=epoch)[0], minlength=1000)
    assert abs(counts.mean() - 60 * 0.768) < 1e-9
    # an epoch chooses each with a probability of 0.256: so often in 60 with a spread of 3.4, thrice each time
    assert abs(counts.std() / 3 - 3.4) < 0.6 and counts.min() > 0


def test_every_occurrence_of_an_image_has_a_turn_of_its_own():
    pairs = np.concatenate([np.stack(stream(3, epoch=epoch)) for epoch in range(9)], axis=1)
    assert len(np.unique(pairs, axis=1).T) == pairs.shape[1] == 9 * 768


def test_one_repeat_is_the_order_itself():
    order, positions = Order([30, 50], 1, 8), np.arange(200)
    found, plain = Repeated(order, 1).locate(positions), order.locate(positions)
    assert (found[0] == plain[0]).all() and (found[1] == plain[1]).all()


@pytest.mark.parametrize("images", [1, 2, 10, 255, 256, 257, 1000])
def test_places_rise_with_positions_and_stay_in_their_epoch(images):
    repeated = Repeated(Order([images], 0, 16), 3)
    positions = np.arange(3 * repeated.length)
    places = repeated.places(positions)
    assert (np.diff(places) >= 0).all()
    assert (places // images == positions // repeated.length).all()


def test_an_epoch_of_imagenet_is_the_official_one():
    assert epoch_length(1_281_167, 3) == 1_281_024 == 1251 * 1024
    assert epoch_length(1_281_167, 1) == 1_281_167 and epoch_length(200, 3) == 200


def test_a_loader_cuts_each_copy_anew_and_the_same_on_any_number_of_ranks_and_after_a_restart():
    source = Memory([encoded(picture(number, 20, 24)) for number in range(12)])
    crops = MultiCrop(global_crops=SMALL, local_crops=LocalCrops(count=0))
    data = Data(repeats=3, crops=crops, threads=0)
    given = {"batch": 6, "seed": 3, "steps": 6}
    whole = list(Loader(data, source, **given))
    first = whole[0]
    assert first.samples.tolist() == [s for s in first.samples[::3].tolist() for _ in range(3)]
    assert first.epochs.tolist() == [0, 1, 2, 0, 1, 2]
    cut = first.crops["global"][0]
    assert not cut[0].equal(cut[1]) and not cut[1].equal(cut[2])
    ranks = [list(Loader(data, source, rank=rank, world=2, start=4, **given)) for rank in range(2)]
    for step, one, two in zip((4, 5), *ranks):
        assert (one.signature + two.signature) % 2**64 == whole[step].signature
        assert one.crops["global"].equal(whole[step].crops["global"][:, ::2])
