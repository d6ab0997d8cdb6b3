"""Nodes whose disks are their own: found out before a run, while it runs, and made good by a bucket."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import needed

needed("boto3")
needed("moto.server")
needed("s3fs")

from tests.benchmarks._processes import tree  # noqa: E402
from tests.distributed.driven import Run, ended, lines, written_recipe  # noqa: E402
from tests.distributed.nodes import Nodes, cluster  # noqa: E402
from tests.raymask.bucket import SECRET, Bucket, opened  # noqa: E402

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ASKS = """
import os, signal, sys, ray
from pathlib import Path
from raymask.distributed.preflight import alive
from raymask.distributed.storage import check_storage

ray.init(address=sys.argv[1], logging_level="ERROR", log_to_driver=False)
nodes = [node for node in alive() if node["Resources"].get("CPU")]
for pid in sys.argv[4:]:
    os.kill(int(pid), getattr(signal, sys.argv[3]))
check_storage(Path(sys.argv[2]), nodes, key="root", say=print, seconds=12)
print("asked", len(nodes))
"""


@pytest.fixture(scope="module")
def bucket() -> Iterator[Bucket]:
    with opened() as running:
        yield running


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that a node with a disk of its own does not see."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture(scope="module")
def apart(root: Path) -> tuple[str, ...]:
    """How a process begins that has another disk at `root`."""
    mount = f"mount -t tmpfs none {root}"
    command = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    if subprocess.run([*command, mount], capture_output=True).returncode:
        pytest.skip("this machine does not let a process have a disk of its own")
    return (*command, f'{mount} && exec "$@"', "sh")


@pytest.fixture(scope="module")
def nodes(bucket: Bucket, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """One node that sees `root`."""
    with cluster(tmp_path_factory.mktemp("cluster"), nodes=1, given=bucket.environment) as running:
        yield running


@pytest.fixture
def foreign(nodes: Nodes, apart: tuple[str, ...]) -> str:
    """The address of a node with another disk at `root`, one for all tests that need it."""
    return (nodes.nodes[1] if len(nodes.nodes) > 1 else nodes.add(apart)).address


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_recipe(tmp_path_factory.mktemp("recipe"))


def asked(nodes: Nodes, root: Path, sign: str = "SIGCONT", pids: tuple[int, ...] = ()) -> str:
    """What check_storage says, all in all, if the processes get the signal before."""
    done = subprocess.run(
        [sys.executable, "-c", ASKS, nodes.head.address, str(root), sign, *(str(pid) for pid in pids)],
        env=nodes.environment(),
        capture_output=True,
        text=True,
        timeout=240,
    )
    return done.stdout + done.stderr


def test_a_node_with_another_disk_that_joins_a_run_ends_it_with_a_sentence(
    nodes: Nodes, recipe: Path, root: Path, apart: tuple[str, ...]
):
    run = Run(root / "late", recipe, nodes.environment())
    with ended(run):
        run.train(
            "train.steps=100000", "workers=1:2", "cluster.resize=2", f"cluster.address={nodes.head.address}"
        )
        run.until(lambda: run.step() > 0, otherwise="the first line")
        nodes.add(apart)
        assert run.end() == 2, run.output
    sentence = run.output.splitlines()[-1]
    assert sentence.startswith(f"raymask: run.root={root} is not seen by the cluster's node "), sentence
    assert not list(root.glob(".seen-*"))


def test_a_node_with_another_disk_is_named_before_a_search_by_the_key_that_helps(
    nodes: Nodes, root: Path, foreign: str
):
    said = asked(nodes, root)
    assert f"root={root} is not seen by the cluster's node {foreign}: checkpoints have to lie" in said
    assert "set root to a folder that all share (NFS)" in said


@pytest.mark.usefixtures("foreign")
def test_nodes_with_a_disk_each_train_one_run_through_a_bucket(
    nodes: Nodes, recipe: Path, root: Path, apart: tuple[str, ...], bucket: Bucket
):
    run = Run(root / "a", recipe, nodes.environment(), apart)  # wherever the first worker is, it is elsewhere
    settings = "train.steps=42", "train.sharing=fsdp2", "run.mirror=s3://bucket/runs"
    with ended(run):
        run.train(*settings, "workers=2", f"cluster.address={nodes.head.address}")
        assert run.end() == 0, run.output
    assert bucket.read("a/checkpoints/last") == b"step_00000042\n"
    assert (
        len([name for name in bucket.names() if name.startswith("a/checkpoints/step_00000042/shards/")]) == 2
    )
    assert b'"step": 42' in bucket.read("a/metrics.jsonl") and SECRET not in run.output
    assert not list(root.glob("a/checkpoints/.writing_*"))
    run = Run(root / "a", recipe, nodes.environment())
    with ended(run):
        run.train("train.steps=42", "run.mirror=s3://bucket/runs", "run.resume=true", "workers=null")
        assert run.end() == 0, run.output
    assert (
        "continuing at step 42 of 42" in run.output and lines(run.folder / "metrics.jsonl")[-1]["step"] == 42
    )


@pytest.mark.parametrize("sign", ["SIGSTOP", "SIGKILL"])
def test_a_node_that_does_not_answer_is_left_to_its_workers(nodes: Nodes, root: Path, sign: str):
    victim = nodes.add()
    pids = tuple(tree(victim.process.pid))
    try:
        said = asked(nodes, root / sign, sign, pids)
    finally:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    assert f"the cluster's node {victim.address} could not say whether it sees root=" in said, said
    assert "workers there will look for themselves" in said
