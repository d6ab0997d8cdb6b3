"""Fetching ahead of use: one window of each lane, within the bound, its own lanes only, and it ends."""

import threading
import time
from itertools import takewhile

import pytest

from pipelines.loader import Loader
from pipelines.order import Order
from pipelines.reading import Reading
from pipelines.remote import retry
from pipelines.remote.ahead import Ahead
from pipelines.source import open_source
from tests.pipelines.remote.server import FAULTS, Reply, Server, serving
from tests.pipelines.remote.walking import cache, data, packed, walk

SHARDS = 160  # so that 64 lanes read two or three each


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("ahead"), shard_images=2, each=SHARDS)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(retry, "FIRST", 0.01)


def fetched(server: Server) -> set[str]:
    return {path for method, path in server.asked if method == "GET" and path.endswith(".tar")}


def until(true) -> None:
    """Waits for what other threads bring about."""
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_it_fetches_the_coming_window_and_then_waits(bucket, tmp_path):
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        order = Order(source.shard_sizes, 1, 2)
        reading = Reading(order, rank=0, world=1)
        ahead = Ahead(source, reading, start=0, end=10**6)
        soon = takewhile(lambda need: need[0] <= reading.generation, reading.needs(0))
        now = {shard for _, shard in soon}
        until(lambda: len(fetched(server)) >= len(now))
        time.sleep(0.2)
        assert fetched(server) == {f"/set/{source.shards[shard].name}" for shard in now}
        assert 64 < len(now) < SHARDS
        ahead.reach(reading.generation)
        until(lambda: len(fetched(server)) == SHARDS)
        ahead.close()


def test_it_fetches_nothing_behind_the_last_step(bucket, tmp_path):
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        walk(source, steps=1, shuffle_window=1)
        few = len(fetched(server))
    assert 8 <= few <= 16


def test_a_node_fetches_its_own_lanes_only(bucket, tmp_path):
    with serving(bucket) as server:
        for rank in range(4):
            server.asked.clear()
            source = open_source(f"{server.url}/set", cache=cache(tmp_path / str(rank)))
            walk(source, rank=rank, world=4, steps=len(source) // 8, shuffle_window=2)
            assert len(fetched(server)) <= SHARDS // 4 + 16  # shards that an edge of a lane cuts count twice


@pytest.mark.slow
def test_a_cache_smaller_than_the_data_changes_nothing(bucket, tmp_path):
    local = open_source(bucket / "set")
    size = max(shard.bytes for shard in local.shards)
    steps = 3 * len(local) // 8 // 2
    with serving(bucket, FAULTS["cut"]) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, gb=135 * size / 1e9))
        highest = [0]
        done = threading.Event()

        def watch() -> None:
            while not done.wait(0.01):
                highest[0] = max(highest[0], source.cache.stored())

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            found = walk(source, steps=steps, shuffle_window=1)
        finally:
            done.set()
            watcher.join()
        assert found == walk(local, steps=steps, shuffle_window=1)
        assert size < highest[0] <= source.cache.bound
        assert sum(n for (_, path), n in server.asked.items() if path.endswith(".tar")) > 2 * SHARDS


def test_a_cache_smaller_than_the_lanes_is_refused_with_what_it_takes(bucket, tmp_path):
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, gb=1e-5))
        with pytest.raises(
            ValueError, match=r"64 lanes read .* GB of shards at one time: raise data\.cache\.gb"
        ):
            walk(source, steps=1)


def test_closing_the_loader_ends_reads_that_wait_for_the_network(bucket, tmp_path):
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, patience=600))
        server.fault = lambda *_: Reply(500)
        loader = Loader(data(), source, batch=8, seed=0, steps=2)
        begun = time.monotonic()
        waiting = threading.Thread(target=lambda: _next_or_end(loader))
        waiting.start()
        time.sleep(0.5)
        loader.close()
        waiting.join(20)
        assert not waiting.is_alive() and time.monotonic() - begun < 20


def _next_or_end(loader) -> None:
    with pytest.raises((RuntimeError, ValueError), match="closed"):
        next(iter(loader))
