"""What the tests of this room share: one local Ray cluster of two cores for all of them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymask.distributed.bootstrap import prepare_environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cluster on this machine; its token lies in a home of its own. Everything it started ends with it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
    # Workers start in another folder, and import the tests, too.
    patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    prepare_environment(local=True)
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()
    patch.undo()
