"""Faults of the machine are no faults of images: they delay, or they stop with a sentence, never replace."""

import errno
import os
import resource
import signal
import threading
import time
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from pipelines.data import Data
from pipelines.decode import BadSample
from pipelines.evaluation import evaluation_batches
from pipelines.fetch import fetched
from pipelines.gain import gain
from pipelines.inspect import look
from pipelines.loader import Loader
from pipelines.pack import Packing, pack
from pipelines.remote.settings import Cache
from pipelines.source import ShardError, open_source
from pipelines.stored import stored_index
from pipelines.verify import Verify, verify
from tests.pipelines.pictures import Memory, memory
from tests.pipelines.storage import files, folder, shard
from tests.pipelines.test_loader import SMALL

PASSING = [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.ESTALE, errno.ETIMEDOUT]
ITS_OWN = [errno.ENOENT, errno.EACCES, errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG]


class Flaky(Memory):
    """Sample 5 cannot be read the first `times` times."""

    def __init__(self, number: int, times: int) -> None:
        super().__init__(memory(23).files)
        self.number, self.times = number, times
        self.asked = Counter[int]()

    def read(self, sample: int) -> bytes:
        self.asked[sample] += 1
        if sample == 5 and self.asked[5] <= self.times:
            raise OSError(self.number, os.strerror(self.number), "0005.jpg")
        return super().read(sample)


def loader(source: Memory, *, patience: float, threads: int = 2) -> Loader:
    data = Data(crops=SMALL, threads=threads, max_bad_fraction=0.1, cache=Cache(patience=patience))
    return Loader(data, source, batch=5, seed=0, steps=5)


def test_a_fault_of_the_machine_that_passes_changes_nothing_but_the_time():
    whole = [batch.samples.tolist() for batch in loader(memory(23), patience=0)]
    for number in PASSING:
        source = Flaky(number, times=1)
        flaky = loader(source, patience=30)
        assert [batch.samples.tolist() for batch in flaky] == whole
        assert source.asked[5] >= 2 and flaky.bad.counts() == {}, os.strerror(number)


@pytest.mark.parametrize("number", PASSING)
def test_a_fault_of_the_machine_that_stays_stops_with_a_sentence(number):
    flaky = loader(Flaky(number, times=99), patience=0)
    with pytest.raises(ShardError, match=rf"5\.jpg in .* cannot be read: {os.strerror(number).lower()}"):
        list(flaky)
    assert flaky.bad.counts() == {}


@pytest.mark.parametrize("number", ITS_OWN)
def test_a_fault_of_the_file_is_one_bad_sample_without_a_second_try(number):
    source = Flaky(number, times=99)
    with pytest.raises(BadSample, match="unreadable"):
        fetched(source, 5)
    assert source.asked[5] == 1


def test_who_closes_a_loader_waits_for_no_fault():
    flaky = loader(Flaky(errno.EIO, times=99), patience=600)
    batches, begun = iter(flaky), time.monotonic()
    threading.Timer(1.0, flaky.close).start()
    with pytest.raises((RuntimeError, ShardError)):
        list(batches)
    assert time.monotonic() - begun < 20


def test_evaluation_waits_as_long_as_is_set():
    data = Data(crops=SMALL, threads=0, cache=Cache(patience=0))
    with pytest.raises(ShardError, match="input/output error"):
        list(evaluation_batches(data, Flaky(errno.EIO, times=99)))


@pytest.mark.parametrize("threads", [0, 2])
def test_ctrl_c_ends_an_evaluation_that_waits_for_storage(threads):
    data = Data(crops=SMALL, threads=threads, cache=Cache(patience=600))
    batches = evaluation_batches(data, Flaky(errno.EIO, times=10**6))
    begun = time.monotonic()
    main = threading.main_thread().ident
    threading.Timer(1.0, signal.pthread_kill, (main, signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        list(batches)
    assert time.monotonic() - begun < 20


def zipped(root: Path) -> Path:
    path = root.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as file:
        for name, data in files(folder(root, each=5)).items():
            file.writestr(name, data)
    return path


STORED = {
    "folder": lambda root: folder(root, each=5),
    "shard": lambda root: shard(root.with_suffix(".tar"), count=10),
    "zip": zipped,
}


@pytest.mark.parametrize("kind", STORED)
def test_no_free_descriptors_are_waited_for(kind, tmp_path):
    root = STORED[kind](tmp_path / "d")
    source, other = open_source(root), open_source(root)
    expected = [other.read(sample) for sample in range(10)]
    fetched(Flaky(errno.EIO, times=1), 5)  # whatever is compiled or loaded first
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = threading.Timer(0.5, resource.setrlimit, (resource.RLIMIT_NOFILE, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            source.read(0)
        free.start()
        assert [fetched(source, sample) for sample in range(10)] == expected
    finally:
        free.join()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_packing_verifying_and_inspecting_stop_rather_than_call_an_image_bad(tmp_path, monkeypatch):
    root = folder(tmp_path / "d", each=5)
    now, real = Cache(patience=0), os.pread

    def broken(file: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").readlink().name == "003.jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", broken)
    with pytest.raises(ShardError, match=r"cat/003\.jpg in .* cannot be read: input/output error"):
        pack(root, tmp_path / "out", Packing(cache=now), progress=False)
    assert not list(tmp_path.glob("out/*.tar"))
    for fast in (True, False):
        found = verify(root, Verify(cache=now, fast=fast), progress=False)
        assert not found.whole and not found.bad and "003.jpg" in found.broken[0]
    with pytest.raises(ShardError, match="cannot be read"):
        look(open_source(root), 3, patience=0)


@pytest.mark.parametrize("kind", ["shard", "zip"])
def test_a_stale_file_is_opened_again(kind, tmp_path, monkeypatch):
    source, real = open_source(STORED[kind](tmp_path / "d")), os.pread
    expected = source.read(3)
    stale = (source._open[0] if kind == "shard" else source._open).file
    kept = os.dup(stale)

    def pread(file: int, size: int, offset: int) -> bytes:
        if file == stale:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    with pytest.raises(OSError, match="Stale"):
        source.read(3)
    os.dup2(kept, stale)  # so that no new file gets its number
    assert source.read(3) == expected
    os.close(kept)
    os.close(stale)


@pytest.mark.parametrize("number", PASSING)
@pytest.mark.parametrize("place", ["read_bytes", "stat"])
def test_a_fault_of_the_machine_at_an_index_says_nothing_of_the_shard(number, place, tmp_path, monkeypatch):
    path = shard(tmp_path / "d.tar")
    stored_index(path, {})

    def broken(self: Path, **_: object) -> bytes:
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, place, broken)
    with pytest.raises(OSError, match=os.strerror(number)):
        stored_index(path, {})


def test_what_a_fault_keeps_from_being_looked_at_is_not_counted(tmp_path, monkeypatch):
    path, real = shard(tmp_path / "d.tar", count=40), os.pread
    begins = stored_index(path, {}).offsets.tolist()

    def broken(file: int, size: int, offset: int) -> bytes:
        if offset == begins[35]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", broken)
    found = verify(path, Verify(cache=Cache(patience=0), workers=1), progress=False)
    assert found.images == 32 and not found.bad and "input/output error" in found.broken[0]


def test_what_cannot_be_read_after_a_pack_is_not_counted_and_not_waited_for_twice(tmp_path, monkeypatch):
    root = folder(tmp_path / "d", each=5)
    packed, begun, real = pack(root, tmp_path / "out", progress=False), time.monotonic(), os.pread

    def broken(file: int, size: int, offset: int) -> bytes:
        if Path(f"/proc/self/fd/{file}").readlink().suffix == ".jpg":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(file, size, offset)

    monkeypatch.setattr(os, "pread", broken)
    found = gain(root, packed, cache=Cache(patience=1))
    assert found.before.rate == 0 < found.after.rate
    assert 1 <= time.monotonic() - begun < 8
