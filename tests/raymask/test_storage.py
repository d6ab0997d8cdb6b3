"""Machines with a disk each train one run through a bucket, and lose nothing whatever fails."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.raymask.tiny_run import RECIPE, pictures

pytest.importorskip("boto3")
pytest.importorskip("moto.server")
pytest.importorskip("s3fs")

from tests.raymask.bucket import Bucket, Machines, opened

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with opened() as running:
        yield running


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Eight steps of a tiny run, with a checkpoint every other one."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.yaml").write_text(RECIPE)
    photos = pictures(folder / "pictures")
    return (
        *("train", str(folder / "tiny.yaml"), f"data={photos}", "run.name=a", "train.steps=8"),
        *("train.checkpoint_images=24", "evaluate.every_images=null"),
    )


MIRRORED = ("run.mirror=s3://bucket/runs", "run.resume=true")


def rests(disk: Path) -> list[str]:
    """What is half-written on a disk."""
    return sorted(path.name for path in disk.glob("a/checkpoints/.*"))


def complete(bucket: Bucket) -> set[str]:
    """The checkpoints of the bucket that look complete."""
    return {name.split("/")[2] for name in bucket.names() if name.endswith("/state.json")}


def test_each_machine_sends_its_share_and_keeps_no_half_of_a_checkpoint(
    bucket: Bucket, recipe: tuple[str, ...], tmp_path: Path
):
    two = Machines([tmp_path / "one", tmp_path / "two"], bucket.environment)
    two.begin(*recipe, *MIRRORED, "train.sharing=fsdp2")
    assert two.end() == [0, 0], two.said() + two.said(1)
    assert bucket.read("a/checkpoints/last") == b"step_00000008\n"
    assert complete(bucket) == {"step_00000006", "step_00000008"}
    shards = {name.rpartition("/")[2] for name in bucket.names() if "/step_00000008/shards/" in name}
    assert len(shards) == 2, shards
    assert [rests(disk) for disk in two.disks] == [[], []]
