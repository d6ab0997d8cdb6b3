"""Parts of a batch, joined: the batch of one loader, whoever made which rows. Without Ray."""

import pickle

import pytest

from pipelines.data import Data
from pipelines.loader import Loader
from raymask.distributed.ingest_part import Joiner, Part, part_of
from tests.distributed.same import assert_same
from tests.pipelines.pictures import Memory, encoded, memory, picture
from tests.pipelines.test_loader import BROKEN, SMALL

STEPS = 4


def data(mode: str) -> Data:
    return Data.model_validate({"crops": SMALL, "threads": 0, "augment": mode, "max_bad_fraction": 0.2})


def parts(source: Memory, mode: str, *, batch: int, rank: int, world: int, actors: int) -> list[list[Part]]:
    """By step, what the actors of a rank make, as it comes through the wire: read-only."""
    made = []
    for number in range(actors):
        share = {"rank": rank + world * number, "world": world * actors}
        with Loader(data(mode), source, batch=batch, seed=3, steps=STEPS, **share) as loader:
            sent = [pickle.dumps(part_of(b, bad=(), seconds={}), protocol=5) for b in loader]
        made.append([pickle.loads(one) for one in sent])
    return [list(step) for step in zip(*made)]


@pytest.mark.parametrize("mode", ["cpu", "split", "device"])
@pytest.mark.parametrize(
    ("batch", "world", "actors"), [(8, 1, 1), (8, 2, 2), (7, 1, 3), (11, 2, 3), (13, 3, 4)]
)
def test_the_parts_of_any_number_of_actors_make_the_batches_of_any_rank(mode, batch, world, actors):
    source = memory(23, broken=BROKEN)
    for rank in range(world):
        joiner = Joiner(SMALL, most=-(-batch // world), pin=False)
        alone = Loader(data(mode), source, batch=batch, seed=3, rank=rank, world=world, steps=STEPS)
        found = parts(source, mode, batch=batch, rank=rank, world=world, actors=actors)
        for expected, step in zip(alone, found, strict=True):
            assert_same(joiner.join(step), expected)


def test_pictures_too_large_for_the_device_find_their_rows():
    source = memory(23, broken={i: encoded(picture(i, 1300, 30 + i)) for i in range(0, 23, 2)})
    joiner = Joiner(SMALL, most=8, pin=False)
    alone = Loader(data("device"), source, batch=16, seed=3, world=2, rank=0, steps=STEPS)
    found = parts(source, "device", batch=16, rank=0, world=2, actors=3)
    large = 0
    for expected, step in zip(alone, found, strict=True):
        assert_same(joiner.join(step), expected)
        large += len(expected.raw.large)
    assert large > STEPS  # several in one batch


def test_a_batch_that_is_held_keeps_its_pixels_while_others_are_joined():
    source = memory(23)
    joiner = Joiner(SMALL, most=8, pin=False)
    found = parts(source, "cpu", batch=8, rank=0, world=1, actors=2)
    held = [joiner.join(step) for step in found]
    for batch, expected in zip(held, Loader(data("cpu"), source, batch=8, seed=3, steps=STEPS), strict=True):
        assert_same(batch, expected)
