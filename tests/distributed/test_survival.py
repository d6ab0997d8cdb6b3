"""What dies does not take the run with it: it ends as an unbroken one, and repeats one interval at most."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.distributed.driven import (
    CHECKPOINT,
    ENVIRONMENT,
    LOG,
    Run,
    ended,
    written_recipe,
)
from tests.distributed.nodes import Nodes, cluster
from tests.distributed.survival import (
    LARGER,
    assert_equal,
    assert_nothing_torn,
    drain_node,
    kill_controller,
    kill_driver,
    kill_inside_a_checkpoint,
    kill_worker,
    outlive,
    replace_node,
    workers,
)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_recipe(tmp_path_factory.mktemp("survival"))


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with cluster(tmp_path_factory.mktemp("cluster"), nodes=2) as running:
        yield running


def new(folder: Path, name: str, recipe: Path, nodes: Nodes) -> Run:
    return Run(folder / "runs" / name, recipe, nodes.environment(**ENVIRONMENT))


def test_a_run_outlives_a_worker_its_controller_a_node_and_a_node_taken_away(
    recipe: Path, nodes: Nodes, tmp_path: Path
):
    length = "train.steps=480"  # enough for a quick machine, too
    whole, run = (new(tmp_path, name, recipe, nodes) for name in ("whole", "struck"))
    with ended(whole), ended(run):
        whole.torchrun(length)
        assert whole.end() == 0, whole.output
        run.train(length, "workers=2", f"cluster.address={nodes.head.address}")
        survived = []
        run.until_step(CHECKPOINT + LOG)
        survived.append(outlive(run, "worker", lambda: kill_worker(nodes)))
        survived.append(outlive(run, "controller", lambda: kill_controller(nodes)))
        survived.append(outlive(run, "node", lambda: replace_node(nodes)))
        survived.append(outlive(run, "drain", lambda: drain_node(run, nodes)))
        assert run.end() == 0, run.output
    for fault in survived:
        assert fault.repeated <= CHECKPOINT + LOG, fault
    assert "died" in run.output and "the process that watches the workers died" in run.output
    assert_nothing_torn(run)
    assert_equal(run, whole, within=0)


def test_a_run_outlives_its_driver_and_a_node_inside_of_a_checkpoint(
    recipe: Path, nodes: Nodes, tmp_path: Path
):
    length = ("train.steps=210", LARGER)
    whole, run = (new(tmp_path, name, recipe, nodes) for name in ("whole", "torn"))
    with ended(whole), ended(run):
        whole.torchrun(*length)
        assert whole.end() == 0, whole.output
        run.train(*length, "workers=2", f"cluster.address={nodes.head.address}")
        run.until_step(CHECKPOINT + LOG)
        torn = outlive(run, "checkpoint", lambda: kill_inside_a_checkpoint(run, nodes))
        driven = outlive(run, "driver", lambda: kill_driver(run))
        assert run.end() == 0, run.output
    assert max(torn.repeated, driven.repeated) <= CHECKPOINT + LOG
    assert_nothing_torn(run)
    assert_equal(run, whole, within=0)


def test_an_elastic_run_goes_on_with_one_worker_and_takes_a_second_when_there_is_room(
    recipe: Path, nodes: Nodes, tmp_path: Path
):
    length = "train.steps=1200"
    whole, run = (new(tmp_path, name, recipe, nodes) for name in ("one", "elastic"))
    with ended(whole), ended(run):
        run.train(length, "workers=1:2", "cluster.resize=5", f"cluster.address={nodes.head.address}")
        run.until_step(LOG)
        assert len(workers(nodes)) == 2
        shrunk = outlive(run, "node", nodes.living()[0].kill)
        assert len(workers(nodes)) == 1
        grown = outlive(run, "room", nodes.add)
        assert len(workers(nodes)) == 2
        assert run.end() == 0, run.output
        whole.train(length)
        assert whole.end() == 0, whole.output
    assert max(shrunk.repeated, grown.repeated) <= CHECKPOINT + LOG
    assert_nothing_torn(run)
    assert_equal(run, whole, within=1e-4)  # rounding differs between one process and two, and grows
