"""What ingest actors leave to the workers, before anything is started."""

import pytest

from raymask.config import load
from raymask.distributed.ingest import check_actors
from raymask.distributed.ingest_placing import beside_actors, runs_at_once
from raymask.distributed.ingest_settings import Ingest
from raymask.distributed.preflight import Request, fitting, request
from raymask.distributed.settings import Cluster

GPU_NODE, CPU_NODE = {"CPU": 16.0, "GPU": 8.0}, {"CPU": 32.0}


def test_actors_go_to_nodes_without_gpus_first():
    left = beside_actors([GPU_NODE, CPU_NODE], Ingest(kind="remote", actors=1, cpus=4), workers=8)
    assert [node["CPU"] for node in left] == [16, 0]
    assert beside_actors([GPU_NODE, CPU_NODE], Ingest(), workers=8) == [GPU_NODE, CPU_NODE]


def test_workers_share_what_actors_leave():
    remote = ["data=photos", "workers=2", "ingest=remote", "ingest.actors=2", "ingest.cpus=1"]
    assert request(load("dino-random-mask", remote), [{"CPU": 8.0}]).cpus == 2
    assert request(load("dino-random-mask", remote[:2]), [{"CPU": 8.0}]).cpus == 4


def test_actors_without_a_place_are_refused_in_a_sentence_unless_nodes_may_come():
    ingest = Ingest(kind="remote", actors=3, cpus=6)
    with pytest.raises(ValueError, match=r"36 CPU cores, of which 6 find no place .* have 32"):
        beside_actors([CPU_NODE], ingest, workers=2)
    assert beside_actors([CPU_NODE], ingest, workers=2, waits=True)[0]["CPU"] == 2


def test_actors_that_leave_the_workers_nothing_are_refused():
    with pytest.raises(ValueError, match="leaves none to the workers"):
        beside_actors([{"CPU": 4.0}], Ingest(kind="remote", actors=1, cpus=2), workers=2)


@pytest.mark.parametrize(("ingest", "many"), [(Ingest(), 8), (Ingest(kind="remote", actors=2, cpus=1), 2)])
def test_as_many_trials_run_at_once_as_fit_with_their_actors(ingest, many):
    asked = Request(1, 1, 1.0, 0.0)
    assert runs_at_once([{"CPU": 8.0}], ingest, workers=1, fits=lambda left: fitting(asked, left)) == many
    assert runs_at_once([{"CPU": 2.0}], ingest, workers=1, fits=lambda left: fitting(asked, left)) in (0, 2)


def test_more_actors_than_images_in_a_batch_are_refused():
    ingest = Ingest(kind="remote", actors=3, cpus=1)
    with pytest.raises(ValueError, match=r"set ingest\.actors to at most 2"):
        check_actors(ingest, Cluster(address="auto"), batch=8, world=4)
    check_actors(ingest, Cluster(address="auto"), batch=12, world=4)


def test_several_processes_need_one_cluster_in_common():
    with pytest.raises(ValueError, match="one cluster for all of them"):
        check_actors(Ingest(kind="remote"), Cluster(), batch=8, world=2)
