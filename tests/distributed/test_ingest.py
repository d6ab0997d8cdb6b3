"""`ingest=remote`: the batches of the local loader, bit for bit, whoever makes them and whatever dies."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipelines.badlog import read_bad
from pipelines.data import Data, open_train_and_val
from pipelines.loader import Loader
from pipelines.pack import Packing, pack
from raymask.distributed.ingest import RemoteLoader
from raymask.distributed.ingest_line import Line
from raymask.distributed.ingest_settings import Ingest
from raymask.distributed.settings import Cluster
from tests.conftest import write_photos
from tests.distributed.same import assert_same
from tests.pipelines.test_loader import SMALL

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

MODES = ("cpu", "split", "device")
ONE = Ingest(kind="remote", actors=1, cpus=1)
TWO = Ingest(kind="remote", actors=2, cpus=1)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 pictures in shards of four."""
    folder = tmp_path_factory.mktemp("ingest")
    pack(write_photos(folder / "photos", per_class=12), folder / "shards", Packing(shard_images=4))
    return folder / "shards"


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """24 pictures in a folder, three of them of no use."""
    folder = write_photos(tmp_path / "broken", per_class=12)
    for number, data in ((2, b""), (3, b"no image"), (9, b"")):
        (folder / "dog" / f"{number:03d}.png").write_bytes(data)
    return folder


def settings(train: Path, **changes: object) -> Data:
    return Data.model_validate(
        {"train": str(train), "crops": SMALL, "threads": 1, "augment": "cpu", **changes}
    )


def local(data: Data, **how: object) -> Loader:
    return Loader(data, open_train_and_val(data)[0], **{"batch": 5, "seed": 3, "steps": 7, **how})


def remote(data: Data, ingest: Ingest, **how: object) -> RemoteLoader:
    source = open_train_and_val(data)[0]
    common = {"batch": 5, "seed": 3, "steps": 7, "ingest": ingest, "cluster": Cluster()}
    return RemoteLoader(data, source, **{**common, **how})


@pytest.mark.parametrize("mode", MODES)
def test_actors_make_the_very_batches_of_the_local_loader(shards: Path, mode: str):
    data = settings(shards, augment=mode)
    expected = list(local(data))
    with remote(data, TWO) as loader:
        got = list(loader)
        timings = loader.take_timings()
    assert len(got) == len(expected) == 7
    for one, other in zip(got, expected):
        assert_same(one, other)
    assert timings["wire"] >= sum(sum(t.nbytes for t in batch.tensors()) for batch in expected)
    assert timings["decode"] > 0 and timings["pull"] > 0 and timings["replaced"] == 0


def test_any_number_of_ranks_and_actors_gives_the_same_batches(shards: Path):
    data = settings(shards)
    for rank in range(2):
        expected = list(local(data, batch=7, rank=rank, world=2, start=2))
        ingest, one_at_a_time = (TWO, Cluster(wait=1)) if rank else (ONE, Cluster())
        how = {"batch": 7, "rank": rank, "world": 2, "start": 2, "cluster": one_at_a_time}
        with remote(data, ingest, **how) as loader:
            for one, other in zip(loader, expected, strict=True):
                assert_same(one, other)


def test_an_actor_that_is_killed_is_replaced_and_no_batch_is_lost_or_made_twice(shards: Path):
    data = settings(shards)
    expected = list(local(data, steps=40))
    got = []
    with remote(data, TWO, steps=40) as loader:
        for batch in loader:
            got.append(batch)
            if batch.step == 3:
                victim = loader.places()[1][1]
                os.kill(victim, signal.SIGKILL)
        timings = loader.take_timings()
        assert victim not in [pid for _, pid in loader.places()]
    assert [batch.step for batch in got] == list(range(40))
    for one, other in zip(got, expected):
        assert_same(one, other)
    assert timings["replaced"] == 1


def test_bad_samples_are_named_as_the_local_loader_names_them(broken: Path, tmp_path: Path):
    data = settings(broken, max_bad_fraction=0.2)
    for name, opened in (("local", local), ("remote", lambda *a, **k: remote(a[0], TWO, **k))):
        with opened(data, steps=10, bad_log=tmp_path / f"{name}.jsonl") as loader:
            list(loader)
            assert loader.bad.counts() == {"zero bytes": 2, "not an image": 1}
    lines = [
        sorted((json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()), key=str)
        for name in ("local", "remote")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 3


def test_too_many_bad_samples_stop_it_with_the_local_loaders_sentence(broken: Path, tmp_path: Path):
    data = settings(broken, max_bad_fraction=0.05)
    said = []
    for name, opened in (("local", local), ("remote", lambda *a, **k: remote(a[0], ONE, **k))):
        log = tmp_path / f"{name}.jsonl"
        with opened(data, steps=10, bad_log=log) as loader, pytest.raises(ValueError) as raised:
            list(loader)
        said.append(str(raised.value))
        assert len(read_bad(log)) == 3
    assert said[0] == said[1] and "raise data.max_bad_fraction" in said[0]


def test_a_rank_of_several_counts_bad_samples_and_leaves_the_limit_to_all(broken: Path):
    data = settings(broken, max_bad_fraction=0)
    how = {"batch": 8, "rank": 0, "world": 2, "steps": 6}
    alone = local(data, **how)
    assert len(list(alone)) == 6 and len(alone.bad.fresh()) > 1
    with remote(data, ONE, **how) as loader:
        assert len(list(loader)) == 6
        assert loader.bad.fresh() == alone.bad.fresh()


def test_memory_is_bounded_while_nobody_takes_batches(shards: Path):
    import ray

    data = settings(shards, prefetch=1)
    with remote(data, ONE, steps=10_000) as loader:
        iterator = iter(loader)
        first = next(iterator)
        size = sum(tensor.nbytes for tensor in first.tensors())
        time.sleep(2)
        assert loader.take_timings()["wire"] <= 4 * size * 1.1
        assert ray.available_resources()["object_store_memory"] > 0


class Dying:
    """An actor that starts and dies of its first part."""

    def where(self) -> tuple[str, int]:
        return "here", os.getpid()

    def part(self, step: int) -> None:
        os._exit(1)


def line(*, cpus: float, patience: float) -> Line:
    import ray

    actor = ray.remote(Dying).options(num_cpus=cpus)
    how = {"start": 0, "steps": 3, "ahead": 2, "patience": patience, "stop": threading.Event()}
    return Line(lambda step: actor.remote(), **how)


def test_actors_that_die_one_after_another_stop_it_with_a_sentence():
    dying = line(cpus=0, patience=60)
    part = dying.take()
    assert isinstance(part.error, RuntimeError) and "5 ingest actors died one after another" in str(
        part.error
    )
    assert dying.replaced == 5 and len({process for _, process in dying.places}) == 5


def test_an_actor_that_finds_no_place_is_given_up_after_a_while_with_a_sentence():
    part = line(cpus=50, patience=1).take()
    assert isinstance(part.error, ValueError) and "did not start within 1 s" in str(part.error)


def test_actors_end_with_their_loader(shards: Path):
    data = settings(shards)
    with remote(data, ONE, steps=10_000) as loader:
        next(iter(loader))
        (_, process), *_ = loader.places()
        assert Path(f"/proc/{process}").exists()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not Path(f"/proc/{process}").exists()


def test_data_that_an_actor_does_not_see_alike_are_refused_in_a_sentence(shards: Path, tmp_path: Path):
    data = settings(shards)
    source = open_train_and_val(data)[0]
    other = data.model_copy(update={"train": str(write_photos(tmp_path / "others", per_class=12))})
    common = {"batch": 5, "seed": 3, "steps": 7, "ingest": ONE, "cluster": Cluster()}
    with RemoteLoader(other, source, **common) as loader, pytest.raises(ValueError, match="holds other data"):
        next(iter(loader))
    gone = data.model_copy(update={"train": str(tmp_path / "gone")})
    with RemoteLoader(gone, source, **common) as loader, pytest.raises(ValueError, match="does not exist"):
        next(iter(loader))


def test_more_cores_than_the_cluster_has_are_refused_at_once(shards: Path):
    large = Ingest(kind="remote", actors=3, cpus=1)
    with remote(settings(shards), large) as loader, pytest.raises(ValueError, match="take 3 CPU cores"):
        iter(loader)
