"""What a cluster cannot do is said in one sentence, before anything is started."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.driven import Run, ended, written_recipe
from tests.distributed.head import free_ports
from tests.distributed.nodes import Nodes, cluster

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

ANOTHER_RAY = "import ray; ray.__version__ = '2.1.0'; from raymask.cli import main; main()"


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("cluster"), nodes=1) as running:
        yield running


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_recipe(tmp_path_factory.mktemp("refusals"))


def refused(
    nodes: Nodes,
    recipe: Path,
    root: Path,
    *changes: str,
    python: tuple[str, ...] = ("-m", "raymask"),
    before: tuple[str, ...] = (),
    **environment: str,
) -> str:
    """What raymask says, on stderr, of a run that it does not begin."""
    given = {"cluster.address": nodes.head.address, "workers": "1"} | dict(
        each.split("=", 1) for each in changes
    )
    done = subprocess.run(
        [*before, sys.executable, *python, "train", str(recipe), f"run.root={root}"]
        + [f"{name}={value}" for name, value in given.items()],
        env=nodes.environment(**environment),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 2, done.stderr
    (sentence,) = [
        line
        for line in done.stderr.splitlines()
        if line.startswith("raymask: ") and " are loaded" not in line
    ]
    return sentence


def test_no_cluster_at_the_address(nodes: Nodes, recipe: Path, tmp_path: Path):
    address = f"127.0.0.1:{free_ports(1)[0]}"
    said = refused(nodes, recipe, tmp_path, f"cluster.address={address}")
    assert f"there is no Ray cluster at cluster.address={address}" in said


def test_a_token_that_is_not_the_clusters(nodes: Nodes, recipe: Path, tmp_path: Path):
    assert "refuses this process's token" in refused(nodes, recipe, tmp_path, RAY_AUTH_TOKEN="0" * 64)


def test_another_version_of_ray(nodes: Nodes, recipe: Path, tmp_path: Path):
    said = refused(nodes, recipe, tmp_path, python=("-c", ANOTHER_RAY))
    assert "runs Ray 2." in said and "this process has 2.1.0: install the cluster's version here" in said


def test_more_workers_than_the_cluster_holds(nodes: Nodes, recipe: Path, tmp_path: Path):
    said = refused(nodes, recipe, tmp_path, "workers=3", "cluster.cpus=1")
    assert "3 workers need 1 CPU" in said and "the cluster holds 1 of them" in said
    assert "1 GPU" in refused(nodes, recipe, tmp_path, "cluster.gpus=1")
    assert not any(tmp_path.iterdir())


def test_storage_that_the_nodes_do_not_see(nodes: Nodes, recipe: Path, tmp_path: Path):
    apart = ("unshare", "--map-root-user", "--mount")
    if subprocess.run(
        [*apart, "mount", "-t", "tmpfs", "none", str(tmp_path)], capture_output=True
    ).returncode:
        pytest.skip("this machine does not let a process have a disk of its own")
    own = (*apart, "sh", "-c", f'mount -t tmpfs none {tmp_path} && exec "$@"', "sh")
    assert f"run.root={tmp_path} is not seen by the cluster's node" in refused(
        nodes, recipe, tmp_path, before=own
    )


def test_a_name_that_another_run_has(nodes: Nodes, recipe: Path, tmp_path: Path):
    command = [sys.executable, "-m", "raymask", "train", str(recipe), f"run.root={tmp_path}", "run.name=a"]
    subprocess.run([*command, "train.steps=1"], env=nodes.environment(), check=True, timeout=300)
    assert "exists and is never overwritten" in refused(nodes, recipe, tmp_path, "run.name=a")
    again = ("run.name=a", "run.resume=true", "optim.base_lr=0.5")
    assert "optim.base_lr" in refused(nodes, recipe, tmp_path, *again)


def test_a_run_that_waits_for_room_says_so_and_can_be_stopped(nodes: Nodes, recipe: Path, tmp_path: Path):
    run = Run(tmp_path / "runs" / "a", recipe, nodes.environment())
    with ended(run):
        run.train("workers=2", "cluster.cpus=1", "cluster.wait=900", f"cluster.address={nodes.head.address}")
        run.until(lambda: "waiting for 2 workers with 1 CPU" in run.output, otherwise="it said that it waits")
        assert "the cluster's nodes hold 1 of them" in run.output
        run.process.terminate()
        assert run.end() == 128 + signal.SIGTERM, run.output
    assert run.output.splitlines()[-1].startswith("raymask: stopped")


def test_a_head_that_dies_ends_the_run_with_a_sentence_that_says_how_to_go_on(
    nodes: Nodes, recipe: Path, tmp_path: Path
):
    """The last test of this file: there is no cluster after it."""
    run = Run(tmp_path / "runs" / "a", recipe, nodes.environment())
    with ended(run):
        run.train("train.steps=100000", "workers=1", f"cluster.address={nodes.head.address}")
        run.until(lambda: run.step() > 0, otherwise="the first line")
        nodes.kill_head()
        assert run.end() == 1, run.output
    (sentence,) = [
        line for line in run.output.splitlines() if line.startswith("raymask: ") and " are loaded" not in line
    ]
    assert "is gone, its head does not answer" in sentence and f"'raymask resume {run.folder}'" in sentence
