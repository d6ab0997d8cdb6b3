"""A cluster that a run starts for itself leaves no folder behind; other clusters' are never touched."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymask.distributed.session import remove_session

STARTS = """
import sys
from raymask.distributed.bootstrap import connected
from raymask.distributed.session import own_session
from raymask.distributed.settings import Cluster

with connected(Cluster(), cpus=1):
    import ray
    assert ray.get(ray.remote(lambda: 7).remote()) == 7
    print(own_session(), own_session().is_dir(), flush=True)
    if sys.argv[1:]:
        raise {"error": RuntimeError, "refusal": ValueError}[sys.argv[1]]
"""


@pytest.fixture
def places() -> Iterator[Path]:
    """Where Ray keeps its folders; the path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="rm", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def another(places: Path) -> Path:
    """The folder of another cluster, with the link to it."""
    folder = places / "session_2026-01-01_00-00-00_000000_1"
    (folder / "logs").mkdir(parents=True)
    (folder / "logs" / "raylet.out").write_text("alive")
    return folder


def test_only_the_folder_itself_and_links_to_it_are_removed(places: Path):
    other, own = another(places), places / "session_2026-01-01_00-00-00_000000_12"
    (own / "logs").mkdir(parents=True)
    (places / "session_latest").symlink_to(own)
    (places / "metrics.json").symlink_to(own / "metrics.json")
    (places / "theirs.json").symlink_to(other / "theirs.json")
    remove_session(places / "session_latest")
    assert own.is_dir(), "a link is nobody's own"
    remove_session(own)
    assert sorted(path.name for path in places.iterdir()) == [other.name, "theirs.json"]
    assert (other / "logs" / "raylet.out").exists()


def test_what_is_no_folder_of_rays_is_left(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    remove_session(tmp_path / "photos")
    assert (tmp_path / "photos").is_dir()


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("ending", "stays"), [((), False), (("refusal",), False), (("error",), True)])
def test_a_cluster_of_our_own_ends_with_its_folder_unless_its_logs_may_say_what_went_wrong(
    places: Path, tmp_path: Path, ending: tuple[str, ...], stays: bool
):
    other = another(places)
    environment = {**os.environ, "HOME": str(tmp_path), "RAY_TMPDIR": str(places)}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(
        [sys.executable, "-c", STARTS, *ending], env=environment, capture_output=True, text=True, timeout=300
    )
    session, was_there = done.stdout.split()
    assert was_there == "True" and Path(session).is_relative_to(places), done.stdout + done.stderr
    assert done.returncode == (1 if ending else 0), done.stderr
    assert Path(session).exists() is stays
    assert (other / "logs" / "raylet.out").exists()
    if not stays:
        (below,) = {path.parent for path in places.rglob("session_*")}
        assert sorted(path.name for path in below.iterdir() if path.is_symlink()) == []
