"""Shards in a bucket of a real S3 API on loopback, behind a proxy that stumbles."""

import logging
import socket
import time
from collections.abc import Iterator

import pytest

from pipelines.remote import download, retry, store
from pipelines.source import ShardError, open_source
from tests.conftest import needed
from tests.pipelines.remote.server import FAULTS, Reply, Server, before
from tests.pipelines.remote.walking import cache, packed, walk

boto3 = needed("boto3")
moto_server = needed("moto.server")
s3fs = needed("s3fs")

FEW = 4  # steps


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    return packed(tmp_path_factory.mktemp("s3"), each=12)


@pytest.fixture(scope="module")
def moto(bucket) -> Iterator[tuple[str, int]]:
    """A server with the packed folder in the bucket `data`."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": "hunter2", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
    client.create_bucket(Bucket="data")
    for path in (bucket / "set").iterdir():
        client.put_object(Bucket="data", Key=f"set/{path.name}", Body=path.read_bytes())
    yield "127.0.0.1", port
    client.close()
    server.stop()


@pytest.fixture
def proxy(moto, monkeypatch) -> Iterator[Server]:
    """What s3:// leads to in this test."""
    monkeypatch.setattr(download, "PIECE", 1 << 12)
    monkeypatch.setattr(retry, "FIRST", 0.01)
    with Server(before(*moto)) as server:
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",  # ours are tested, not botocore's
        }.items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize(
    "fault", [pytest.param(name, marks=[pytest.mark.slow] * (name != "cut")) for name in FAULTS]
)
def test_a_fault_of_the_bucket_delays_and_changes_nothing(fault, bucket, proxy, tmp_path):
    proxy.fault = FAULTS[fault]
    source = open_source("s3://data/set", cache=cache(tmp_path))
    assert walk(source, steps=FEW) == walk(open_source(bucket / "set"), steps=FEW)


def test_tars_in_a_bucket_open_by_pattern_and_by_braces(bucket, proxy, tmp_path):
    local = open_source(sorted((bucket / "set").glob("*.tar")))
    stem = min(path.name for path in (bucket / "set").glob("*.tar")).removesuffix("000000.tar")
    for name in ("*.tar", stem + "{000000..000005}.tar"):
        source = open_source(f"s3://data/set/{name}", cache=cache(tmp_path))
        assert (source.fingerprint, len(source)) == (local.fingerprint, 24)
        assert source.read(23) == local.read(23)


def test_an_object_that_is_replaced_meanwhile_stops_the_run(bucket, proxy, tmp_path):
    victim = sorted((bucket / "set").glob("*.tar"))[2]

    def other(method, path, count, reply):
        if path.endswith(victim.name) and method == "GET":
            return Reply(reply.status, reply.headers, bytes(len(reply.body)))
        return reply

    proxy.fault = other
    source = open_source("s3://data/set", cache=cache(tmp_path))
    with pytest.raises(ShardError, match=rf"s3://data/set/{victim.name} is not the one .* checksum differs"):
        walk(source)


def test_a_bucket_that_takes_connections_and_answers_nothing_is_given_up_after_the_silence(
    proxy, monkeypatch
):
    monkeypatch.setattr(store, "SILENCE", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{hole.getsockname()[1]}")
        monkeypatch.delenv("AWS_MAX_ATTEMPTS")
        begun = time.monotonic()
        with pytest.raises(retry.Failure) as failure:
            store.sizes_below("s3://data/set")
        assert not failure.value.final and time.monotonic() - begun < 15
        assert failure.value.reason == "the server did not answer in time"


def test_a_refused_key_is_said_at_once_and_never_shown(proxy, tmp_path):
    proxy.fault = lambda method, path, count, reply: Reply(403, {}, b"")
    with pytest.raises(ValueError, match="access was denied: check the credentials") as error:
        open_source("s3://data/set", cache=cache(tmp_path))
    assert "hunter2" not in str(error.getrepr(style="long", showlocals=False))
