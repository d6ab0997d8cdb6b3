"""What a cluster gives to the workers of a run, and what is said of it."""

import pytest

from raymask.config import load
from raymask.distributed.preflight import crowded, request


@pytest.mark.parametrize(
    ("workers", "nodes", "set_to"),
    [
        ("4", [{"CPU": 2.0}], "workers=2,"),
        ("3", [{"CPU": 1.0}], "workers=1,"),
        ("1:8", [{"CPU": 4.0}], "workers=1:4,"),
        ("4:8", [{"CPU": 2.0}], "workers=2,"),
        ("2", [{"CPU": 2.0}], None),
        ("3", [{"CPU": 16.0}], None),
        ("4", [{"CPU": 4.0, "GPU": 4.0}], None),
        ("2", [{"CPU": 1.0}, {"CPU": 1.0}], None),
    ],
)
def test_more_workers_than_cores_are_told_what_that_costs_and_what_to_set(workers, nodes, set_to):
    said = crowded(request(load("dino-laptop", [f"workers={workers}"]), nodes))
    assert (said is None) is (set_to is None)
    if said is not None:
        most = workers.rpartition(":")[2]
        assert said.startswith(f"{most} workers share {nodes[0]['CPU']:.0f} core") and "\n" not in said
        assert f"costs time and the memory of {most} processes: set {set_to}" in said
