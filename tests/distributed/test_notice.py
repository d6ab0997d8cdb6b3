"""A node that is taken away says so in time: the notices of clouds, and what Ray hears of them."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from raymask.distributed import notice
from tests.distributed.nodes import cluster

ACTION = "/latest/meta-data/spot/instance-action"
PREEMPTED = "/computeMetadata/v1/instance/preempted"


class Metadata(BaseHTTPRequestHandler):
    """What an instance's metadata server answers; `says` is by path."""

    says: dict[str, str]
    asked: threading.Event

    def do_PUT(self) -> None:
        wanted = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
        self._answer("a token" if wanted else None)

    def do_GET(self) -> None:
        token, flavor = self.headers["X-aws-ec2-metadata-token"], self.headers["Metadata-Flavor"]
        known = token == "a token" if self.path == ACTION else flavor == "Google"
        self._answer(self.says.get(self.path) if known else None)
        self.asked.set()

    def _answer(self, text: str | None) -> None:
        self.send_response(404 if text is None else 200)
        self.end_headers()
        self.wfile.write((text or "").encode())

    def log_message(self, *words: object) -> None:
        """Nothing on the terminal."""


@contextmanager
def serving(says: dict[str, str]) -> Iterator[tuple[str, type[Metadata]]]:
    """A metadata server on this machine: its URL, and what it says."""
    handler = type("Said", (Metadata,), {"says": says, "asked": threading.Event()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def action(seconds: float) -> str:
    """What AWS says that long before it ends an instance."""
    at = datetime.now(UTC) + timedelta(seconds=seconds)
    return json.dumps({"action": "terminate", "time": at.strftime("%Y-%m-%dT%H:%M:%SZ")})


def test_aws_says_when_it_takes_an_instance_back():
    with serving({}) as (url, server):
        assert notice.aws(url) is None
        server.says[ACTION] = action(120)
        assert 60 < notice.aws(url) <= 120
        server.says[ACTION] = action(-5)
        assert notice.aws(url) == 0
        server.says[ACTION] = "{}"
        assert notice.aws(url) is None


def test_google_says_that_it_takes_an_instance_back():
    with serving({PREEMPTED: "FALSE"}) as (url, server):
        assert notice.gcp(url) is None
        server.says[PREEMPTED] = "TRUE"
        assert notice.gcp(url) == 25


def test_a_proxy_is_not_asked_for_what_is_of_this_machine_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with serving({PREEMPTED: "TRUE"}) as (url, _):
        assert notice.gcp(url) == 25


def test_a_metadata_server_that_does_not_answer_gives_no_notice():
    with serving({}) as (url, _):
        pass
    assert notice.aws(url) is None and notice.gcp(url) is None


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_got_notice_is_drained_and_no_other(tmp_path: Path):
    with cluster(tmp_path, nodes=2) as nodes, serving({}) as (url, server):
        leaving, staying = nodes.nodes
        command = [sys.executable, "-m", "raymask.distributed.notice", "aws", f"--metadata={url}"]
        where = [f"--address={nodes.head.address}", f"--ip={leaving.address}"]
        watching = subprocess.Popen(
            [*command, *where], env=nodes.environment(), stdout=subprocess.PIPE, text=True
        )
        try:
            assert server.asked.wait(120)
            assert watching.poll() is None and leaving.address in nodes.alive()
            server.says[ACTION] = action(300)
            said, _ = watching.communicate(timeout=120)
        finally:
            watching.kill()
        assert watching.returncode == 0 and said.startswith("AWS takes the instance back in 2")
        assert leaving.address not in nodes.alive(), "nothing ran on it, so that Ray ended it at once"
        assert staying.address in nodes.alive()
        strange = [sys.executable, "-m", "raymask.distributed.notice", "leave", where[0], "--ip=127.0.0.99"]
        refused = subprocess.run(
            strange, env=nodes.environment(), capture_output=True, text=True, timeout=120, check=False
        )
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1].startswith("error: the cluster at ")
    assert f"no node 127.0.0.99, but {staying.address}, " in refused.stderr
