"""Training with `ingest=remote`: the run that it would have been, resumed as any other."""

import json
from pathlib import Path

import pytest

from pipelines.badlog import read_bad
from raymask.config import load
from raymask.distributed.launch import train_on_ray
from raymask.pace import REMOTE_TIMES, TIMES
from raymask.train import resume
from tests.raymask.tiny_run import RECIPE, pictures, tiny_run

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

REMOTE = ("ingest=remote", "ingest.actors=2", "ingest.cpus=1")


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without what measures speed."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in (*TIMES, *REMOTE_TIMES)} for line in found]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes, one of them broken."""
    folder = pictures(tmp_path_factory.mktemp("photos"))
    (folder / "train" / "red" / "train3.png").write_bytes(b"no image")
    return folder


def run(folder: Path, photos: Path, *changes: str) -> Path:
    folder.mkdir()
    return tiny_run(folder, "data.max_bad_fraction=0.1", "train.checkpoint_images=24", *changes, data=photos)


def test_a_run_fed_from_afar_is_the_same_run_and_so_is_its_continuation(photos: Path, tmp_path: Path):
    expected = run(tmp_path / "local", photos)
    got = run(tmp_path / "remote", photos, *REMOTE)
    assert lines(got) == lines(expected)
    assert read_bad(got / "bad_samples.jsonl") == read_bad(expected / "bad_samples.jsonl") != {}
    timed = [json.loads(line) for line in (got / "metrics.jsonl").read_text().splitlines()]
    assert all(set(REMOTE_TIMES) <= set(line) for line in timed if "loss" in line)
    half_way = got / "checkpoints" / "step_00000002"
    assert half_way.exists()
    (half_way.parent / "last").write_text(half_way.name)
    assert lines(resume(got, ["ingest=local"])) == lines(expected)


@pytest.mark.timeout(600)
def test_a_worker_on_ray_is_fed_by_actors_outside_of_its_own_share_of_the_cluster(
    photos: Path, tmp_path: Path
):
    expected = run(tmp_path / "local", photos)
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    changes = [
        f"run.root={tmp_path}",
        "train.checkpoint_images=24",
        f"data.train={photos}",
        "data.max_bad_fraction=0.1",
        "workers=1",
    ]
    got = train_on_ray(load(str(tmp_path / "tiny.yaml"), [*changes, "ingest=remote", "ingest.cpus=1"]))
    assert lines(got) == lines(expected)
    assert read_bad(got / "bad_samples.jsonl") == read_bad(expected / "bad_samples.jsonl")
