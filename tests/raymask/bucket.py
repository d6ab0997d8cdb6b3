"""A bucket of a real S3 API on loopback, and runs whose ranks are machines with a disk each."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from moto.server import ThreadedMotoServer

from tests.distributed.head import free_ports
from tests.pipelines.remote.server import Reply, Server, before

SECRET = "hunter2-is-secret"
KEYS = {"AWS_ACCESS_KEY_ID": "akey", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
DEADLINE = 500  # seconds that a run of some steps may take on a busy machine

Hold = Callable[[str, str], Reply | None]  # (method, path): an answer in the bucket's place, or None


class Bucket:
    """Its objects, and the door through which runs come to it: `hold` sees each request first."""

    def __init__(self, client, host: str, port: int) -> None:
        self._client, self._there = client, before(host, port)
        self.hold: Hold = lambda method, path: None
        self.door = Server(self._answer)

    @property
    def environment(self) -> dict[str, str]:
        """What a process has that may come in."""
        ours = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_MAX_ATTEMPTS": "1"}
        return {**KEYS, **ours, "AWS_ENDPOINT_URL": self.door.url}

    def names(self) -> set[str]:
        """The objects, by their names below runs/."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket="bucket", Prefix="runs/")
        return {one["Key"].removeprefix("runs/") for page in pages for one in page.get("Contents", ())}

    def read(self, name: str) -> bytes:
        return self._client.get_object(Bucket="bucket", Key=f"runs/{name}")["Body"].read()

    def write(self, name: str, content: bytes) -> None:
        self._client.put_object(Bucket="bucket", Key=f"runs/{name}", Body=content)

    def _answer(self, method: str, path: str, headers, body: bytes) -> Reply:
        return self.hold(method, path.partition("?")[0]) or self._there(method, path, headers, body)


@contextmanager
def opened() -> Iterator[Bucket]:
    """Within it, the bucket is there, and empty."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    _, port = server.get_host_and_port()
    keys = {"aws_access_key_id": "akey", "aws_secret_access_key": SECRET, "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{port}", **keys)
    forget = urllib.request.Request(f"http://127.0.0.1:{port}/moto-api/reset", method="POST")
    urllib.request.urlopen(forget, timeout=30).close()  # what other servers of this process were given
    client.create_bucket(Bucket="bucket")
    bucket = Bucket(client, "127.0.0.1", port)
    with bucket.door:
        yield bucket
    client.close()
    server.stop()


@dataclass
class Machines:
    """Processes that train one run together, rank r in the folder disks[r]; what each said is beside it."""

    disks: list[Path]
    environment: dict[str, str]
    python: tuple[str, ...] = ("-m", "raymask")
    processes: list[subprocess.Popen] = field(default_factory=list)

    def begin(self, *arguments: str) -> None:
        """`raymask ARGUMENTS` on each of them."""
        (port,) = free_ports(1)
        for rank, disk in enumerate(self.disks):
            disk.mkdir(parents=True, exist_ok=True)
            world = {"RANK": rank, "WORLD_SIZE": len(self.disks), "LOCAL_RANK": 0}
            place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": 1}
            told = {name: str(value) for name, value in {**world, **place}.items()}
            with disk.with_suffix(".said").open("a") as said:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, *self.python, *arguments, f"run.root={disk}"],
                        env={**os.environ, **self.environment, **told},
                        stdout=said,
                        stderr=said,
                    )
                )

    def end(self) -> list[int]:
        """The exit codes, once all have ended."""
        until = time.monotonic() + DEADLINE
        codes = [process.wait(max(0.1, until - time.monotonic())) for process in self.processes]
        self.processes = []
        return codes

    def kill(self) -> None:
        """The power is cut."""
        for process in self.processes:
            process.kill()
            process.wait(30)
        self.processes = []

    def said(self, rank: int = 0) -> str:
        return self.disks[rank].with_suffix(".said").read_text()

    def sentences(self) -> set[str]:
        """What raymask ended with."""
        lines = [line for rank in range(len(self.disks)) for line in self.said(rank).splitlines()]
        return {line for line in lines if "raymask: " in line}


def once(
    due: Callable[[str, str], bool],
    *,
    answer: Reply = Reply(503),  # noqa: B008  (it is frozen)
) -> tuple[Hold, threading.Event]:
    """A hold that lets nothing through any more from the first request on that is due, and says so."""
    reached = threading.Event()

    def hold(method: str, path: str) -> Reply | None:
        if due(method, path):
            reached.set()
        if reached.is_set():
            return answer
        return None

    return hold, reached


def stalled(due: Callable[[str, str], bool]) -> tuple[Hold, threading.Event, threading.Event]:
    """A hold that lets the first request that is due wait: then the one event is set, until the other is."""
    reached, released = threading.Event(), threading.Event()

    def hold(method: str, path: str) -> Reply | None:
        if due(method, path) and not reached.is_set():
            reached.set()
            released.wait(DEADLINE)
        return None

    return hold, reached, released


def measured(run: Path, without: tuple[str, ...]) -> list[dict]:
    """metrics.jsonl, but for the values named."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in without} for line in found]
