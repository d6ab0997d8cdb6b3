"""The loader: exactly the same batches for any threads, ranks, and after any interruption."""

import json
import threading

import pytest
import torch

from pipelines.batch import add_signatures
from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.source import ShardError
from tests.pipelines.pictures import Memory, encoded, lines, memory, picture

SMALL = MultiCrop(global_crops=Crops(size=16), local_crops=LocalCrops(count=3, size=8))
BROKEN = {2: b"", 3: b"no image", 17: encoded(picture(0, 30, 30))[:-100]}


def data(**changes: object) -> Data:
    return Data.model_validate({"crops": SMALL, "threads": 0, "max_bad_fraction": 0.2, **changes})


def batches(source: Memory, *, settings: Data | None = None, **how: object) -> list:
    how = {"batch": 5, "seed": 3, "steps": 9, **how}
    return list(Loader(settings or data(), source, **how))


def same(one, other) -> bool:
    tensors = ("labels", "samples", "epochs", "positions")
    return (
        all(torch.equal(getattr(one, name), getattr(other, name)) for name in tensors)
        and all(torch.equal(one.crops[name], other.crops[name]) for name in ("global", "local"))
        and (one.step, one.signature) == (other.step, other.signature)
    )


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("broken", [{}, BROKEN])
def test_any_number_of_threads_gives_the_same_batches_bit_for_bit(threads, broken):
    source = memory(23, broken=broken)
    alone, together = batches(source), batches(source, settings=data(threads=threads))
    assert len(alone) == 9 and all(same(a, b) for a, b in zip(alone, together))


@pytest.mark.parametrize("world", [1, 2, 3, 4, 5])
def test_the_ranks_share_out_the_global_batch(world):
    source = memory(23, broken=BROKEN)
    whole = batches(source)
    ranks = [batches(source, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [rank[step] for rank in ranks]
        order = torch.argsort(torch.cat([part.positions for part in parts]))
        for name in ("labels", "samples", "epochs", "positions"):
            assert torch.equal(
                torch.cat([getattr(part, name) for part in parts])[order], getattr(batch, name)
            )
        for name in batch.crops:
            rows = torch.cat([part.crops[name] for part in parts], dim=1)
            assert torch.equal(rows[:, order], batch.crops[name])
        assert add_signatures(*(part.signature for part in parts)) == batch.signature
        assert {part.rows for part in parts} == {5}


@pytest.mark.parametrize("start", [1, 4, 8])
def test_starting_at_a_step_continues_the_run(start):
    source = memory(23, broken=BROKEN)
    assert all(same(a, b) for a, b in zip(batches(source)[start:], batches(source, start=start), strict=True))


def test_batches_hold_what_they_say():
    source = memory(23)
    seen = batches(source, steps=23)
    first = seen[0]
    assert first.crops["global"].shape == (2, 5, 3, 16, 16) and first.crops["local"].shape == (3, 5, 3, 8, 8)
    assert first.crops["global"].dtype == torch.float32
    samples = torch.cat([batch.samples for batch in seen])
    assert torch.equal(torch.cat([batch.positions for batch in seen]), torch.arange(115))
    assert torch.equal(torch.cat([batch.epochs for batch in seen]), torch.arange(115) // 23)
    assert torch.equal(torch.cat([batch.labels for batch in seen]), samples % 3)
    for epoch in range(5):
        assert sorted(samples[23 * epoch : 23 * (epoch + 1)].tolist()) == list(range(23))


def test_an_image_is_cut_otherwise_in_every_epoch_and_under_every_seed():
    source = memory(5)
    one, two = batches(source, steps=2)
    crops = one.crops["global"][0, one.samples.argsort()], two.crops["global"][0, two.samples.argsort()]
    assert not any(torch.equal(a, b) for a, b in zip(*crops))
    assert one.signature != two.signature != batches(source, seed=4)[1].signature


def test_a_batch_stays_as_it_is_while_it_is_held():
    source = memory(23)
    loader = Loader(data(threads=2, prefetch=1), source, batch=5, seed=3, steps=9)
    held, copies = [], []
    for batch in loader:
        held.append(batch)
        copies.append(batch.crops["local"].clone())
    assert all(torch.equal(batch.crops["local"], copy) for batch, copy in zip(held, copies))


def test_memory_is_used_again_once_a_batch_is_let_go():
    seen = set()
    for batch in Loader(data(threads=1, prefetch=1), memory(23), batch=5, seed=3, steps=30):
        seen.add(batch.crops["global"].data_ptr())
    assert len(seen) <= 4


def test_bad_samples_are_replaced_by_the_next_of_their_shard_counted_and_named(tmp_path):
    log = tmp_path / "run" / "bad_samples.jsonl"
    loader = Loader(data(threads=2), memory(23, broken=BROKEN), batch=5, seed=3, steps=10, bad_log=log)
    seen = list(loader)
    samples = torch.cat([batch.samples for batch in seen])
    assert not set(samples.tolist()) & set(BROKEN)
    assert all(torch.isfinite(batch.crops["global"]).all() for batch in seen)
    named = {line["sample"]: line for line in map(json.loads, lines(log))}
    assert len(lines(log)) == 3
    assert {sample: line["replaced_by"] for sample, line in named.items()} == {2: 4, 3: 4, 17: 18}
    causes = {2: "zero bytes", 3: "not an image", 17: "broken image"}
    assert {sample: line["cause"] for sample, line in named.items()} == causes
    assert named[17] == {
        "sample": 17,
        "key": "0017.jpg",
        "shard": "shard-2",
        "cause": "broken image",
        "replaced_by": 18,
    }
    assert loader.bad.counts() == {"zero bytes": 1, "not an image": 1, "broken image": 1}
    assert loader.take_timings()["bad"] == 3


def test_a_resumed_run_does_not_name_a_bad_sample_twice(tmp_path):
    log = tmp_path / "bad_samples.jsonl"
    source = memory(23, broken=BROKEN)
    batches(source, bad_log=log)
    log.write_text(log.read_text() + '{"sample": 1')  # as a kill may leave it
    batches(source, bad_log=log, start=2)
    assert len(lines(log)) == 4


@pytest.mark.parametrize("threads", [0, 2])
def test_too_many_bad_samples_stop_the_run_with_their_causes(threads):
    source = memory(23, broken=dict.fromkeys(range(6), b"") | {7: b"x"})
    with pytest.raises(ValueError, match=r"3 of 23 images cannot be used \(.*zero bytes.*max_bad_fraction"):
        batches(source, settings=data(threads=threads, max_bad_fraction=0.05), steps=30)


def test_one_bad_image_is_no_reason_to_stop_a_small_run():
    assert len(batches(memory(23, broken={4: b""}), settings=data(max_bad_fraction=0.01), steps=30)) == 30


def test_where_nothing_can_be_read_the_run_stops():
    source = memory(7, broken=dict.fromkeys(range(7), b""))
    with pytest.raises(ValueError, match="none of the 7 images"):
        batches(source, settings=data(max_bad_fraction=1.0))


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_a_broken_shard_is_an_error_that_reaches_the_caller(threads):
    class Torn(Memory):
        def read(self, sample: int) -> bytes:
            if sample >= 16:
                raise ShardError("shard-2 is shorter than its index says")
            return super().read(sample)

    before = threading.active_count()
    with pytest.raises(ShardError, match="shard-2"):
        batches(Torn(memory(23).files), settings=data(threads=threads))
    assert threading.active_count() == before


def test_a_file_that_cannot_be_read_is_a_bad_sample():
    class Gone(Memory):
        def read(self, sample: int) -> bytes:
            if sample == 4:
                raise FileNotFoundError(4)
            return super().read(sample)

    loader = Loader(data(), Gone(memory(23).files), batch=5, seed=3, steps=5)
    assert not any(4 in batch.samples for batch in loader) and loader.bad.counts() == {"unreadable": 1}


def test_leaving_early_ends_the_threads():
    before = threading.active_count()
    with Loader(data(threads=3), memory(23), batch=5, seed=3, steps=1000) as loader:
        running = iter(loader)
        assert [next(running).step for _ in range(3)] == [0, 1, 2]
        assert threading.active_count() == before + 3
    assert threading.active_count() == before
    for batch in loader:
        if batch.step == 2:
            break
    assert threading.active_count() == before


def test_an_interrupt_while_waiting_ends_the_threads():
    class Interrupting(Memory):
        def read(self, sample: int) -> bytes:
            if sample == 9:
                raise KeyboardInterrupt
            return super().read(sample)

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        batches(Interrupting(memory(23).files), settings=data(threads=2))
    assert threading.active_count() == before


def test_timings_start_anew_each_time_they_are_taken():
    loader = Loader(data(threads=1), memory(23), batch=5, seed=3, steps=9)
    list(loader)
    first, second = loader.take_timings(), loader.take_timings()
    assert set(first) == {"data_wait", "read", "decode", "cut", "queue", "bad"}
    assert min(first[name] for name in ("data_wait", "decode", "cut")) > 0
    assert second == {"data_wait": 0, "read": 0, "decode": 0, "cut": 0, "queue": 0, "bad": 0}


def test_pictures_of_one_pixel_and_of_extreme_shape_are_cut_like_others():
    pictures = [picture(0, height, width) for height, width in ((1, 1), (1, 90), (90, 1), (2, 3), (500, 4))]
    source = Memory([encoded(pixels, "PNG") for pixels in pictures])
    assert all(torch.isfinite(batch.crops["local"]).all() for batch in batches(source, steps=20))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"batch": 24}, "the global batch is 24 images but the data set holds only 23"),
        ({"world": 6}, "cannot feed 6 workers"),
        ({"rank": 2, "world": 2}, "rank 2 is not one of 2 workers"),
    ],
)
def test_what_cannot_be_shared_out_is_refused(how, says):
    with pytest.raises(ValueError, match=says):
        batches(memory(23), **how)
