"""The cache of remote shards: bounded, shared by processes, and holding nothing but what was checked."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import subprocess
import threading

import pytest

from pipelines.fetch import fetched
from pipelines.index import HASHED, ShardError
from pipelines.remote import download as downloading
from pipelines.remote import shards as remote_shards
from pipelines.remote.cache import NoRoom, ShardCache
from pipelines.remote.settings import Cache
from pipelines.remote.wanted import Wanted
from pipelines.source import open_source
from tests.pipelines.remote.contending import contend
from tests.pipelines.remote.server import FAULTS, serving
from tests.pipelines.remote.walking import cache, packed

STOP = threading.Event()


def wanted(number: int, size: int = 1000) -> Wanted:
    return Wanted(f"http://example.org/{number}.tar", size, f"blake2b:{number}")


def write(size: int):
    return lambda file: os.pwrite(file, b"x" * size, 0)


def store(folder, gb: float = 3.5e-6) -> ShardCache:
    return ShardCache(Cache(folder=str(folder), gb=gb))


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"lock"}


def test_what_was_used_longest_ago_makes_way_and_what_is_held_stays(tmp_path):
    cache = store(tmp_path)
    held = [cache.hold(wanted(n), write(1000), stop=STOP) for n in range(3)]
    for n in (1, 2):
        os.close(held[n])
    os.utime(cache.path(wanted(1)), (1, 1))
    os.close(cache.hold(wanted(3), write(1000), stop=STOP))
    assert names(tmp_path) == {cache.path(wanted(n)).name for n in (0, 2, 3)}
    with pytest.raises(NoRoom):
        for n in (2, 3, 4):
            held.append(cache.hold(wanted(n), write(1000), stop=STOP))
    assert cache.stored() <= cache.bound


def test_what_is_needed_last_makes_way_and_what_is_not_spare_stays(tmp_path):
    cache = store(tmp_path)
    for n in range(3):
        os.close(cache.hold(wanted(n), write(1000), stop=STOP))
    uses = {wanted(0).name: 70.0, wanted(1).name: 90.0, wanted(2).name: None}
    os.close(cache.hold(wanted(3), write(1000), spare=uses.get, stop=STOP))
    assert names(tmp_path) == {cache.path(wanted(n)).name for n in (0, 2, 3)}


def test_a_shard_that_is_on_its_way_counts_in_full(tmp_path):
    cache, other = store(tmp_path), store(tmp_path)

    def half(file):
        os.pwrite(file, b"x", 0)
        assert cache.stored() == 3000
        with pytest.raises(NoRoom):
            other.hold(wanted(2), write(1000), stop=STOP)

    os.close(cache.hold(wanted(1, 3000), half, stop=STOP))


def test_a_shard_larger_than_the_cache_is_refused(tmp_path):
    with pytest.raises(ShardError, match=r"4,000 bytes, but the cache may hold 3,500: raise data.cache.gb"):
        store(tmp_path).hold(wanted(1, 4000), write(4000), stop=STOP)


def test_other_files_in_the_folder_are_neither_counted_nor_removed(tmp_path):
    (tmp_path / "thesis.pdf").write_bytes(bytes(9000))
    cache = store(tmp_path)
    for n in range(6):
        os.close(cache.hold(wanted(n), write(1000), stop=STOP))
    assert (tmp_path / "thesis.pdf").exists() and cache.stored() == 3000


def test_a_folder_that_cannot_be_written_is_refused_with_advice(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"set data\.cache\.folder"):
        store(tmp_path / "file" / "cache")


def test_processes_that_contend_stay_below_the_bound_and_never_see_half_a_file(tmp_path):
    context = multiprocessing.get_context("spawn")
    worst = context.Value("q", 0)
    crew = [context.Process(target=contend, args=(str(tmp_path), seed, worst)) for seed in range(3)]
    for process in crew:
        process.start()
    for process in crew:
        process.join(100)
    assert [process.exitcode for process in crew] == [0, 0, 0]
    assert 1000 <= worst.value <= 3500


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("cache"), each=12)


def fill(source) -> list[bytes]:
    return [source.read(sample) for sample in range(len(source))]


def test_a_cache_that_holds_two_shards_serves_all_of_them(bucket, tmp_path):
    size = max(shard.bytes for shard in open_source(bucket / "set").shards)
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, gb=2.5 * size / 1e9))
        assert fill(source) == fill(open_source(bucket / "set"))
        assert source.cache.stored() <= source.cache.bound


def test_a_full_disk_makes_old_copies_go_and_then_stops_with_a_sentence(bucket, tmp_path, monkeypatch):
    size = max(shard.bytes for shard in open_source(bucket / "set").shards)
    disk = {"bytes": int(2.7 * size)}
    real = downloading._write

    def write_to_a_small_disk(file, data, offset):
        used = sum(path.stat().st_size for path in tmp_path.iterdir())
        if used + len(data) > disk["bytes"]:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(file, data, offset)

    monkeypatch.setattr(downloading, "_write", write_to_a_small_disk)
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, patience=0.5))
        assert fill(source) == fill(open_source(bucket / "set"))
        assert 1 <= len(list(tmp_path.glob("*.tar"))) <= 2
        disk["bytes"] = size // 2
        for copy in tmp_path.glob("*.tar"):
            copy.unlink()
        source._open.clear()
        with pytest.raises(ShardError, match=r"000000\.tar finds no room .* its disk is full"):
            source.read(0)
        assert not list(tmp_path.glob("*.part"))


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("mount"), reason="needs to mount a file system")
def test_a_fault_of_the_machine_at_the_cache_is_waited_for(bucket, tmp_path, monkeypatch):
    faults, real = [errno.EMFILE, errno.ESTALE], ShardCache.hold

    def hold(*args, **named):
        if faults:
            raise OSError(number := faults.pop(), os.strerror(number))
        return real(*args, **named)

    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        monkeypatch.setattr(ShardCache, "hold", hold)
        with pytest.raises(OSError, match="Stale"):
            source.read(0)
        assert fetched(source, 0, patience=20) == open_source(bucket / "set").read(0)
    assert not faults


def test_a_real_full_disk_gives_way_too(bucket, tmp_path):
    place = tmp_path / "disk"
    place.mkdir()
    size = max(shard.bytes for shard in open_source(bucket / "set").shards)
    pages = 3 * -(-size // 4096) + 6  # three shards of six, and the indexes
    room = f"size={pages * 4096}"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", room, "tmpfs", place], capture_output=True).returncode:
        pytest.skip("a tmpfs cannot be mounted here")
    try:
        with serving(bucket) as server:
            source = open_source(f"{server.url}/set", cache=cache(place, patience=0.5))
            assert fill(source) == fill(open_source(bucket / "set"))
            assert 1 <= len(list(place.glob("*.tar"))) < 6
            del source
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_secrets_of_urls_are_in_no_message_name_or_file(bucket, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_shards, "ROOM_POLL", 0.01)
    seen = []

    def fault(method, path, count, reply):
        seen.append(path)
        return FAULTS["none"](method, path, count, reply)

    with serving(bucket, fault) as server:
        name = min(path.name for path in (bucket / "set").glob("*.tar"))
        place = f"127.0.0.1:{server.port}/set/{name}"
        url = f"http://ada:hunter2@{place}?X-Amz-Signature=swordfish&part=1"
        source = open_source(url, cache=cache(tmp_path))
        said = [source.shard(0), *map(str, source.paths), *names(tmp_path), source.fingerprint]
        for copy in tmp_path.glob("*.tar"):
            copy.unlink()
        server.fault = lambda *_: FAULTS["status 500"]("GET", "", 1, None)
        source.cache.patience = 0.05
        with pytest.raises(ShardError) as error:
            source.read(0)
        with pytest.raises(ValueError) as other:
            open_source(url.replace("set/", "nothing/{0,1}"), split="val", cache=cache(tmp_path))
    text = json.dumps([*said, str(error.getrepr()), str(other.getrepr())])
    chain = [error.value.__cause__, other.value.__cause__]
    assert name in text and chain == [None, None]
    shown = [str(error.value), str(other.value), *said]
    assert not [word for word in ("hunter2", "swordfish", "ada") for one in shown if word in one]
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"hunter2" not in content and b"swordfish" not in content


def test_the_checksum_is_of_the_whole_shard(bucket):
    shard = open_source(bucket / "set").shards[0]
    data = (bucket / "set" / shard.name).read_bytes()
    assert shard.checksum == HASHED + hashlib.blake2b(data, digest_size=32).hexdigest()
