"""Two hosts that share nothing but a bucket: killed, resumed by one, then by three, and nothing changes."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines.source import open_source
from tests.pipelines.remote.server import Server, cut, serving, slow
from tests.pipelines.remote.walking import Walked, packed, walk

STEPS = 16


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("hosts"))


def start(
    server: Server, place: Path, rank: int, world: int, first: int, steps: int, *, hold: int = STEPS
) -> subprocess.Popen:
    """A host; its cache is named by its rank, so that a resumed one finds what the killed one had."""
    place.mkdir(exist_ok=True)
    out = place / f"{rank}-of-{world}-from-{first}"
    numbers = map(str, (rank, world, first, steps, hold))
    command = [sys.executable, "-m", "tests.pipelines.remote.host", f"{server.url}/set"]
    return subprocess.Popen([*command, str(place / f"cache{rank}"), str(out), *numbers])


def steps_of(place: Path, rank: int, world: int, first: int) -> list[Walked]:
    """What a host wrote; a last line torn by its kill is no step."""
    out = place / f"{rank}-of-{world}-from-{first}"
    lines = out.read_text().split("\n")[:-1] if out.exists() else []
    return [{position: tuple(row) for position, row in json.loads(line)} for line in lines]


def together(place: Path, world: int, first: int) -> list[Walked]:
    """The steps that every host of a run came through, as global batches."""
    hosts = [steps_of(place, rank, world, first) for rank in range(world)]
    return [{key: row for part in parts for key, row in part.items()} for parts in zip(*hosts)]


def run(server: Server, place: Path, world: int, first: int, steps: int) -> list[Walked]:
    hosts = [start(server, place, rank, world, first, steps) for rank in range(world)]
    try:
        assert [host.wait(200) for host in hosts] == [0] * world
    finally:
        for host in hosts:
            host.kill()
    return together(place, world, first)


def killed(server: Server, place: Path, *, after: int) -> list[Walked]:
    """Two hosts, of which the second is killed without notice after some steps, and the first thereafter."""
    hosts = [start(server, place, rank, 2, 0, STEPS, hold=after + rank) for rank in range(2)]
    try:
        end = time.monotonic() + 200
        while len(together(place, 2, 0)) < after:
            assert time.monotonic() < end and all(host.poll() in (None, 0) for host in hosts)
            time.sleep(0.01)
    finally:
        for host in reversed(hosts):
            host.kill()
            host.wait()
    return together(place, 2, 0)


@pytest.mark.slow
def test_two_hosts_one_killed_resumed_by_one_and_then_by_three_give_the_unbroken_sequence(bucket, tmp_path):
    expected = walk(open_source(bucket / "set"), steps=STEPS)

    def fault(method, path, count, reply):
        return slow(method, path, count, cut(method, path, count, reply))

    with serving(bucket, fault) as server:
        found = killed(server, tmp_path, after=4)
        assert 4 <= len(found) <= 6
        alone = run(server, tmp_path, 1, len(found), len(found) + 3)
        assert len(alone) == 3
        found += alone
        three = run(server, tmp_path, 3, len(found), STEPS)
        found += three
    assert len(found) == STEPS
    assert {key: row for step in found for key, row in step.items()} == expected
    assert {path.name for path in tmp_path.glob("cache*")} == {"cache0", "cache1", "cache2"}
