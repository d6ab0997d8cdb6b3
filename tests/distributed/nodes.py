"""A real cluster of several nodes on this machine, each of which can be killed as if its power were cut."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.benchmarks._processes import tree
from tests.distributed.head import BIN, Head, end, free_ports, started

# The address of a node on which each worker lives alone; 127.0.0.1 is the head's, where the driver runs.
_ADDRESS = "127.0.0.{}"
_JOINING = 240  # seconds, on a machine that is busy with other things
_TRIES = 3  # Ray has limits of its own for a node that starts
_PORTS = (
    "--node-manager-port",
    "--object-manager-port",
    "--dashboard-agent-listen-port",
    "--dashboard-agent-grpc-port",
    "--metrics-export-port",
    "--runtime-env-agent-port",
)


class Node:
    """A node beside the head: the process that started it, which is the ancestor of all others of it."""

    def __init__(self, address: str, process: subprocess.Popen, log: Path) -> None:
        self.address = address
        self.process = process
        self.log = log

    def kill(self) -> None:
        """All of its processes at once, so that none can say farewell."""
        _kill(self.process.pid)
        self.process.wait(20)


class Nodes:
    """A head without cores for training, and nodes with one core each that come and go."""

    def __init__(self, head: Head, folder: Path, given: Mapping[str, str]) -> None:
        self.head = head
        self.given = given
        self.folder = folder
        self.nodes: list[Node] = []
        self._added = 0
        self._leaving: list[subprocess.Popen] = []

    def environment(self, **changes: str) -> dict[str, str]:
        """What the shell has in which a driver or `ray` is called."""
        return self.head.environment(
            RAY_AUTH_MODE="token", PATH=f"{BIN}:{os.environ['PATH']}", **self.given, **changes
        )

    def add(self, before: tuple[str, ...] = ()) -> Node:
        """A new node with one core; it has joined when this returns. before: what its command begins with"""
        return self.joined(self.begin(before), before)

    def joined(self, node: Node, before: tuple[str, ...] = ()) -> Node:
        """The node once it has joined, or another where it gave up on a machine that is too busy."""
        for _ in range(_TRIES - 1):
            try:
                self.wait_for(node)
                return node
            except RuntimeError:
                node.kill()
                node = self.begin(before)
        self.wait_for(node)
        return node

    def wait_for(self, node: Node) -> None:
        """Until the node has joined."""
        until = time.monotonic() + _JOINING
        while node.address not in self.alive():
            if time.monotonic() > until or node.process.poll() is not None:
                raise RuntimeError(f"{node.address} did not join: {node.log.read_text()[-2000:]}")
            time.sleep(0.3)

    def begin(self, before: tuple[str, ...] = ()) -> Node:
        """A new node that will join soon."""
        self._added += 1
        address = _ADDRESS.format(self._added + 1)
        # A folder of its own: the agent of a dead node's successor would clean up what others still use.
        own = tempfile.mkdtemp(prefix="rm", dir=self.folder)
        log = self.folder / f"node{self._added}.log"
        ports = [f"{name}={port}" for name, port in zip(_PORTS, free_ports(len(_PORTS)))]
        process = subprocess.Popen(
            [
                *before,
                *(
                    "ray",
                    "start",
                    "--block",
                    f"--address={self.head.address}",
                    f"--node-ip-address={address}",
                ),
                *("--num-cpus=1", "--object-store-memory=100000000", "--disable-usage-stats"),
                *(f"--temp-dir={own}", "--min-worker-port=0", "--max-worker-port=0", *ports),
            ],
            env=self.environment(),
            stdout=log.open("w"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.nodes.append(Node(address, process, log))
        return self.nodes[-1]

    def living(self) -> list[Node]:
        """The nodes beside the head that were not killed, the oldest first."""
        return [node for node in self.nodes if node.process.poll() is None]

    def kill_head(self) -> None:
        """Cuts the power of the head; the cluster is of no use after it."""
        _kill(self.head.group)

    def alive(self) -> dict[str, str]:
        """Addresses of the nodes that the head believes to be alive, with their ids."""
        request = urllib.request.Request(
            f"{self.head.url}/api/v0/nodes?detail=false",
            headers={"Authorization": f"Bearer {self.head.token}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found = json.load(answer)["data"]["result"]["result"]
        return {node["node_ip"]: node["node_id"] for node in found if node["state"] == "ALIVE"}

    def drain(self, node: Node, *, seconds: int) -> None:
        """Announces that the node will be taken away, as a pod does that is ended."""
        leave = [sys.executable, "-m", "raymask.distributed.notice", "leave", f"--seconds={seconds}"]
        where = [f"--address={self.head.address}", f"--ip={node.address}"]
        self._leaving.append(subprocess.Popen([*leave, *where], env=self.environment()))

    def _end(self) -> None:
        for leaving in self._leaving:
            leaving.kill()
            leaving.wait()
        for node in self.nodes:
            if node.process.poll() is None:
                node.kill()
            end(node.process)


@contextmanager
def cluster(folder: Path, *, nodes: int, given: Mapping[str, str] | None = None) -> Iterator[Nodes]:
    """Within it, a head and so many nodes run; all of their processes end with it. given: to their shells"""
    with tempfile.TemporaryDirectory(prefix="rm") as short, started(folder, cpus=0) as head:
        running = Nodes(head, Path(short), given or {})
        try:
            for node in [running.begin() for _ in range(nodes)]:
                running.joined(node)
            yield running
        finally:
            running._end()


def _kill(root: int) -> None:
    processes = tree(root)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in processes:
            _send(pid, number)


def _send(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
