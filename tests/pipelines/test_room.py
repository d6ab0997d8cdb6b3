"""Shards stay open for as long as the order comes back to them, in as many files as a process may have."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from pipelines import room
from pipelines.formats import sharded
from pipelines.formats.joined import JoinedSource
from pipelines.index import ShardError
from pipelines.order import Order
from pipelines.reading import Reading
from pipelines.room import keep_what_is_read
from pipelines.source import open_source

SHARDS, EACH, WINDOW, LANES = 60, 4, 8, 8


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def packed(folder: Path, *, label: str = "cls", shards: int = SHARDS) -> None:
    folder.mkdir()
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:03d}.tar", "w") as tar:
            for image in range(EACH):
                for name, data in (("jpg", bytes([shard, image])), (label, b"1")):
                    member = tarfile.TarInfo(f"{image}.{name}")
                    member.size = len(data)
                    tar.addfile(member, io.BytesIO(data))


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A source of small shards, two of them held unless more are asked for; and how often what was called."""
    packed(tmp_path / "set")
    monkeypatch.setattr(sharded, "OPEN_SHARDS", 2)
    monkeypatch.setattr(room, "OPEN_SHARDS", 2)
    source, calls = open_source(tmp_path / "set"), {"descriptor": 0, "check_index": 0}

    def watched(name):
        real = getattr(sharded, name)

        def counting(*given):
            calls[name] += 1
            return real(*given)

        monkeypatch.setattr(sharded, name, counting)

    watched("descriptor"), watched("check_index")
    return source, calls


def walk(source, *, epochs: int = 1) -> list[int]:
    """Reads in order; the number of open files after each image, beside those of before."""
    order = Order(source.shard_sizes, 3, WINDOW, lanes=LANES)
    keep_what_is_read(source, Reading(order, rank=0, world=1), start=0)
    samples, _ = order.locate(np.arange(epochs * len(order)))
    before, found = open_files(), []
    for sample in samples.tolist():
        assert source.read(sample) == bytes([sample // EACH, sample % EACH])
        found.append(open_files() - before)
    return found


def test_an_epoch_opens_a_shard_no_more_often_than_windows_need_it(counted):
    source, calls = counted
    walk(source)
    order = Order(source.shard_sizes, 3, WINDOW, lanes=LANES)
    found = Reading(order, rank=0, world=1)._stretches(0)
    assert calls["descriptor"] <= (found.last - found.first).sum() < SHARDS * EACH


def test_where_files_are_few_shards_are_opened_again_and_not_compared_again(counted, monkeypatch):
    source, calls = counted
    monkeypatch.setattr(room, "files", lambda: 6)
    assert max(walk(source)) <= 6
    assert calls["descriptor"] > 1.5 * SHARDS and calls["check_index"] <= 1.5 * SHARDS


def test_what_is_held_does_not_grow_with_the_shards_that_were_seen(counted):
    source, _ = counted
    found = walk(source, epochs=3)
    assert max(found[: len(source)]) == max(found) < SHARDS


def test_a_shard_that_was_replaced_while_it_was_closed_is_refused(counted, tmp_path, monkeypatch):
    source, _ = counted
    monkeypatch.setattr(room, "files", lambda: 1)
    walk(source)
    path = tmp_path / "set" / "000.tar"
    data = bytearray(path.read_bytes())
    data[512] ^= 1
    source.read(0), source.read(EACH)  # the one file is that of another shard
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)
    with pytest.raises(ShardError, match=r"000\.tar"):
        source.read(0)


def test_data_sets_side_by_side_share_the_files(tmp_path, monkeypatch):
    packed(tmp_path / "one", label="txt"), packed(tmp_path / "two", label="txt")
    parts = [open_source(tmp_path / name) for name in ("one", "two")]
    parts[1].classes = []  # two of one name are refused
    source = JoinedSource(parts, "here")
    monkeypatch.setattr(room, "files", lambda: 10)
    monkeypatch.setattr(room, "OPEN_SHARDS", 2)
    order = Order(source.shard_sizes, 3, WINDOW, lanes=LANES)
    keep_what_is_read(source, Reading(order, rank=0, world=1), start=0)
    before = open_files()
    for sample in range(len(source)):
        source.read(sample)
    assert 2 <= open_files() - before <= 10
