"""Shards behind a real web server: faults delay, or stop with a sentence; they never change what comes."""

import shutil
import socket
import time
from dataclasses import replace
from importlib.util import find_spec

import pytest

from pipelines.pack import pack
from pipelines.plan import Packing
from pipelines.remote import download, retry, store
from pipelines.remote.settings import Cache
from pipelines.source import ShardError, open_source
from pipelines.verify import Verify, verify
from tests.pipelines.remote.server import FAULTS, Reply, serving
from tests.pipelines.remote.walking import IMAGES, cache, packed, walk
from tests.pipelines.storage import folder


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("http"))


@pytest.fixture(scope="module")
def expected(bucket):
    return walk(open_source(bucket / "set"))


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """Small pieces, so that a shard takes several requests, and short pauses."""
    monkeypatch.setattr(download, "PIECE", 1 << 11)
    monkeypatch.setattr(retry, "FIRST", 0.01)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_delays_and_changes_nothing(fault, bucket, expected, tmp_path):
    with serving(bucket, FAULTS[fault]) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        assert source.fingerprint == open_source(bucket / "set").fingerprint
        assert walk(source) == expected


def test_a_packed_folder_opens_with_one_request_and_reads_no_more_than_it_needs(bucket, tmp_path):
    with serving(bucket) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        assert sum(server.asked.values()) == 1 and len(source) == IMAGES
        source.read(0)
        assert {path for _, path in server.asked if path.endswith(".tar")} == {
            "/set/" + source.shards[0].name
        }


@pytest.mark.parametrize("scheme", ["http", "ftp"])  # ftp connects as it is opened
def test_a_server_out_of_reach_is_waited_for_as_long_as_is_asked(scheme, tmp_path):
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{nobody.getsockname()[1]}/set"
        for path in (url, f"{url}/*.tar", f"@{url}.txt"):
            begun = time.monotonic()
            with pytest.raises(
                ValueError, match=r"cannot be opened: no connection.*data\.cache\.opening says"
            ):
                open_source(path, cache=Cache(folder=str(tmp_path), opening=0.3))
            assert 0.3 <= time.monotonic() - begun < 10


def test_a_cut_connection_is_resumed_where_it_broke(bucket, tmp_path):
    name, begins = "", []

    def fault(method, path, count, reply):
        if path.endswith(".tar"):
            begins.append(int(reply.headers["Content-Range"].split()[1].split("-")[0]))
            if count == 3:
                return replace(reply, cut=10)
        return reply

    with serving(bucket, fault) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        source.read(0)
    assert begins[:4] == [0, 2048, 4096, 4096] and begins.count(0) == 1, name


def test_a_killed_download_is_continued_by_the_next_process(bucket, tmp_path):
    gone = Reply(404)
    with serving(bucket, lambda m, p, n, reply: gone if p.endswith(".tar") and n > 2 else reply) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path))
        with pytest.raises(ShardError, match="not there"):
            source.read(0)
        (part,) = tmp_path.glob("*.part")
        assert part.stat().st_size == 2 * 2048
        server.fault = FAULTS["none"]
        asked = server.asked["GET", "/set/" + source.shards[0].name]
        again = open_source(f"{server.url}/set", cache=cache(tmp_path))
        assert again.read(0) == open_source(bucket / "set").read(0)
        pieces = -(-source.shards[0].bytes // 2048)
        assert server.asked["GET", "/set/" + source.shards[0].name] - asked == pieces - 2


def test_what_stays_broken_stops_the_run_and_names_the_shard(bucket, tmp_path):
    def fault(method, path, count, reply):
        return Reply(500) if path.endswith("000002.tar") else reply

    with serving(bucket, fault) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path, patience=0.3))
        with pytest.raises(ShardError, match=r"000002\.tar cannot be fetched: .* status 500 \(\d+ attempts"):
            walk(source)


def test_a_shard_that_was_replaced_after_packing_is_refused(bucket, tmp_path):
    copy = shutil.copytree(bucket, tmp_path / "copy")
    shard = sorted((copy / "set").glob("*.tar"))[5]
    content = bytearray(shard.read_bytes())
    content[700] ^= 1
    shard.write_bytes(content)
    with serving(copy) as server:
        source = open_source(f"{server.url}/set", cache=cache(tmp_path / "cache"))
        with pytest.raises(ShardError, match=rf"{shard.name} is not the one .* checksum differs"):
            walk(source)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.read_bytes() == bytes(content)]


def test_a_flipped_bit_on_the_way_is_fetched_again(bucket, expected, tmp_path):
    def fault(method, path, count, reply):
        if path.endswith(".tar") and count == 2:
            return replace(reply, body=bytes([reply.body[0] ^ 1]) + reply.body[1:])
        return reply

    with serving(bucket, fault) as server:
        assert walk(open_source(f"{server.url}/set", cache=cache(tmp_path))) == expected


@pytest.fixture
def plain(bucket, tmp_path):
    """The same shards without a manifest and without indexes, as other tools leave them."""
    folder = tmp_path / "plain"
    folder.mkdir()
    for shard in (bucket / "set").glob("*.tar"):
        shutil.copy(shard, folder)
    return folder


def test_plain_tars_are_fetched_and_scanned_and_give_what_local_ones_give(plain, tmp_path):
    expected = walk(open_source(shutil.copytree(plain, tmp_path / "local")))
    with serving(plain, FAULTS["cut"]) as server:
        for name in ("", "/set-{000000..000011}.tar"):
            names = sorted(path.name for path in plain.glob("*.tar"))
            stem = names[0].rpartition("000000")[0]
            url = f"{server.url}/{name and stem + '{000000..000011}.tar'}"
            source = open_source(url, cache=cache(tmp_path / "cache"))
            assert source.labels.tolist() == open_source(tmp_path / "local").labels.tolist()
            assert walk(source) == expected


@pytest.mark.parametrize("same_length", [True, False])
def test_a_plain_tar_that_is_replaced_meanwhile_stops_the_run(plain, tmp_path, same_length):
    names = sorted(plain.glob("*.tar"))
    with serving(plain) as server:
        source = open_source([f"{server.url}/{path.name}" for path in names], cache=cache(tmp_path / "cache"))
        for copy in (tmp_path / "cache").glob("*.tar"):
            copy.unlink()
        old = names[3].read_bytes()
        names[3].write_bytes(old[:600] + b"x" + old[601:] + (b"" if same_length else bytes(512)))
        with pytest.raises(ShardError, match=f"{names[3].name} .*it was replaced"):
            walk(source)


def test_a_tar_that_is_replaced_while_it_is_fetched_stops_the_run(plain, tmp_path):
    victim = sorted(plain.glob("*.tar"))[0]

    def replace_it(method, path, count, reply):
        if path.endswith(victim.name) and method == "GET" and count == 2:
            victim.write_bytes(bytes(len(victim.read_bytes())))
        return reply

    with serving(plain, replace_it) as server, pytest.raises(ValueError, match=f"{victim.name} .*replaced"):
        open_source(f"{server.url}/{victim.name}", cache=cache(tmp_path / "cache"))


def test_a_server_without_ranges_serves(bucket, expected, tmp_path):
    with serving(bucket, ranges=False) as server:
        assert walk(open_source(f"{server.url}/set", cache=cache(tmp_path))) == expected


def test_splits_and_lists_of_urls_open(bucket, tmp_path):
    both = tmp_path / "both"
    for split in ("train", "val"):
        shutil.copytree(bucket / "set", both / split)
    with serving(tmp_path) as server:
        source = open_source(f"{server.url}/both", split="val", cache=cache(tmp_path / "cache"))
        assert len(source) == IMAGES
        shards = sorted(path.name for path in (both / "val").glob("*.tar"))[:2]
        (tmp_path / "list.txt").write_text("".join(f"{server.url}/both/val/{name}\n" for name in shards))
        for listed in (f"@{tmp_path}/list.txt", f"@{server.url}/list.txt"):
            assert len(open_source(listed, cache=cache(tmp_path / "cache"))) == 8


def test_nothing_behind_a_url_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "empty").mkdir()
    with serving(tmp_path) as server, pytest.raises(ValueError, match=r"/empty is no packed data set"):
        open_source(f"{server.url}/empty", cache=cache(tmp_path / "cache"))


def test_only_what_the_server_says_is_missing_counts_as_missing(tmp_path):
    (tmp_path / "x.tar").write_bytes(b"x")
    with (
        serving(tmp_path, lambda method, path, count, reply: Reply(503)) as server,
        pytest.raises(retry.Failure, match="the server answered with status 503") as busy,
    ):
        store.stamp(f"{server.url}/x.tar")
    with socket.socket() as taken:  # a port on which nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(retry.Failure, match="no connection to the server") as gone:
            store.stamp(f"http://127.0.0.1:{taken.getsockname()[1]}/x.tar")
    with serving(tmp_path) as server, pytest.raises(retry.Failure, match="not there") as missing:
        store.stamp(f"{server.url}/y.tar")
    found = [(error.value.missing, error.value.final) for error in (busy, gone, missing)]
    assert found == [(False, False), (False, False), (True, True)]


def test_several_folders_behind_urls_are_one_data_set(tmp_path):
    for number, classes in enumerate([("ant", "bee"), ("cow", "dog")]):
        images = folder(tmp_path / f"images{number}", classes=classes, each=12)
        pack(images, tmp_path / "bucket" / f"set{number}", Packing(shard_images=4), workers=0)
    local = open_source([tmp_path / "bucket" / f"set{number}" for number in range(2)])
    with serving(tmp_path / "bucket") as server:
        urls = [f"{server.url}/set{number}" for number in range(2)]
        source = open_source(urls, cache=cache(tmp_path / "cache"))
        assert source.classes == ["ant", "bee", "cow", "dog"]
        assert walk(source, steps=6) == walk(local, steps=6)


def test_verify_reads_remote_shards_and_finds_the_bad_one(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copy = shutil.copytree(bucket, tmp_path / "copy")
    with serving(copy) as server:
        assert verify(f"{server.url}/set", Verify(fast=True), progress=False).whole
        shard = sorted((copy / "set").glob("*.tar"))[5]
        shard.write_bytes(shard.read_bytes().replace(b"JFIF", b"JFIX"))
        shutil.rmtree(tmp_path / "cache")
        found = verify(f"{server.url}/set", Verify(fast=True), progress=False)
        assert not found.whole and any(f"{shard.name} is not the one" in one for one in found.broken)


@pytest.mark.skipif(find_spec("gcsfs") is not None, reason="gcsfs is installed")
def test_a_protocol_that_is_not_installed_is_named_with_what_to_install(tmp_path):
    with pytest.raises(ValueError, match=r"gs:// is not installed: pip install 'raymask\[gs\]'"):
        open_source("gs://bucket/set", cache=cache(tmp_path))


def test_an_unknown_protocol_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"fsspec does not know gopher://"):
        open_source("gopher://bucket/set", cache=cache(tmp_path))
