"""A real cluster of one node on this machine: its own ports, home, temporary folder and process group."""

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
_PORTS = (
    "--port",
    "--dashboard-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
    "--node-manager-port",
    "--object-manager-port",
)


@dataclass(frozen=True)
class Head:
    """A cluster that runs: its address, the URL of its dashboard, its token, and a home that holds none."""

    address: str
    url: str
    token: str
    home: Path
    group: int

    def environment(self, **changes: str) -> dict[str, str]:
        """What a user's shell has who knows the token; `changes` over it."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {
            **kept,
            "HOME": str(self.home),
            "RAY_AUTH_TOKEN": self.token,
            "OMP_NUM_THREADS": "1",
            "RAY_API_SERVER_ADDRESS": self.url,
            **changes,
        }


@contextmanager
def started(folder: Path, *, cpus: int = 2) -> Iterator[Head]:
    """Within it, a cluster with token authentication runs; all of its processes end with it."""
    token, home = secrets.token_hex(32), folder / "home"
    home.mkdir()
    ports = dict(zip(_PORTS, free_ports(len(_PORTS))))
    with ExitStack() as stack:
        # The paths of Ray's sockets have a limit that pytest's folders may exceed.
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="rm"))
        environment = {**Head("", "", token, home, 0).environment(), "RAY_AUTH_MODE": "token"}
        del environment["RAY_API_SERVER_ADDRESS"]
        process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--head", "--block", f"--num-cpus={cpus}"]
            + ["--disable-usage-stats", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1"]
            + ["--object-store-memory=100000000", f"--temp-dir={temporary}"]
            + [f"{name}={port}" for name, port in ports.items()],
            env={**environment, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"},
            stdout=(folder / "head.log").open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        stack.callback(end, process, mark=token)
        url = f"http://127.0.0.1:{ports['--dashboard-port']}"
        _wait(url, token, process, folder / "head.log")
        yield Head(f"127.0.0.1:{ports['--port']}", url, token, home, process.pid)


def _wait(url: str, token: str, process: subprocess.Popen, log: Path) -> None:
    """Until the dashboard takes jobs."""
    until = time.monotonic() + 90
    request = urllib.request.Request(f"{url}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise RuntimeError(f"no cluster came up: {log.read_text()[-2000:]}")


def end(process: subprocess.Popen, *, mark: str | None = None) -> None:
    """Ends the group of processes: asked first, so that Ray ends its own, and killed after that.

    mark: text in the environment of processes that have groups of their own, as those of jobs have
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(8)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
    for left in marked(mark) if mark else ():
        with suppress(ProcessLookupError):
            os.kill(left, signal.SIGKILL)


def marked(text: str) -> list[int]:
    """Other processes of this machine in whose environment a text stands."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.name != str(os.getpid()) and text.encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
    return found


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listened on a moment ago."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
