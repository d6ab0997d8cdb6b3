"""Machines with a disk each train one run through a bucket, and lose nothing whatever fails."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipelines.remote import retry
from raymask import checkpoint, state
from raymask.config import load
from raymask.pace import TIMES
from raymask.train import train
from tests.conftest import needed
from tests.raymask.tiny_run import RECIPE, pictures

needed("boto3")
needed("moto.server")
s3fs = needed("s3fs")

from tests.pipelines.remote.server import Reply  # noqa: E402
from tests.raymask.bucket import SECRET, Bucket, Machines, measured, once, opened, stalled  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MIRRORED = ("run.mirror=s3://bucket/runs", "run.resume=true")
IMPATIENT = "import raymask.bucket; raymask.bucket._PATIENCE = 1; from raymask.cli import main; main()"
SPEED = (*TIMES, "left")
Make = Callable[..., Machines]
FAULTS = {"errors": Reply(500), "a line that is cut": Reply(200, {"Content-Length": "9"}, b"", cut=0)}


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    with opened() as running:
        yield running


@pytest.fixture
def machines() -> Iterator[Make]:
    """Makes machines, whose processes are gone after the test."""
    made: list[Machines] = []

    def make(*given, **named) -> Machines:
        made.append(Machines(*given, **named))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Eight steps of a tiny run, with a checkpoint every other one: the file, then changes."""
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "tiny.yaml").write_text(RECIPE)
    photos = pictures(folder / "pictures")
    changes = "train.steps=8", "train.checkpoint_images=24", "evaluate.every_images=null"
    return str(folder / "tiny.yaml"), f"data={photos}", "run.name=a", *changes


@pytest.fixture(scope="module")
def whole(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, unbroken, by one process."""
    return train(load(settings[0], [*settings[1:], f"run.root={tmp_path_factory.mktemp('whole')}"]))


def rests(disk: Path) -> list[str]:
    """What is half-written on a disk."""
    return sorted(path.name for path in disk.glob("a/checkpoints/.*"))


def complete(bucket: Bucket) -> set[str]:
    """The checkpoints of the bucket that look complete."""
    return {name.split("/")[2] for name in bucket.names() if name.endswith("/state.json")}


def assert_same(run: Path, whole: Path, *, within: float) -> None:
    """Every line's hashes are those of the unbroken run, and the weights at the end."""
    mine, others = measured(run, SPEED), measured(whole, SPEED)
    for name in ("step", "samples", "masks"):
        assert [line.get(name) for line in mine] == [line.get(name) for line in others], name
    found, expected = (state.part(each / "checkpoints" / "step_00000008", "model") for each in (run, whole))
    assert max(float((found[name] - expected[name]).abs().max()) for name in expected) <= within


def test_each_machine_sends_its_share_and_keeps_no_half_of_a_checkpoint(
    bucket: Bucket, machines: Make, settings: tuple[str, ...], whole: Path, tmp_path: Path
):
    two = machines([tmp_path / "one", tmp_path / "two"], bucket.environment)
    two.begin("train", *settings, *MIRRORED, "train.sharing=fsdp2")
    assert two.end() == [0, 0], two.said() + two.said(1)
    assert bucket.read("a/checkpoints/last") == b"step_00000008\n"
    assert complete(bucket) == {"step_00000006", "step_00000008"}
    shards = {name.rpartition("/")[2] for name in bucket.names() if "/step_00000008/shards/" in name}
    assert len(shards) == 2, shards
    assert [rests(disk) for disk in two.disks] == [[], []]
    assert_same(two.disks[0] / "a", whole, within=1e-4)  # the last one is whole on the first disk
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 10 and not any(SECRET.encode() in each for each in written)
    assert not any(SECRET.encode() in bucket.read(name) for name in bucket.names())


def test_a_kill_inside_an_upload_leaves_the_checkpoint_before_it_to_another_number_of_machines(
    bucket: Bucket, machines: Make, settings: tuple[str, ...], whole: Path, tmp_path: Path
):
    two = machines([tmp_path / "one", tmp_path / "two"], bucket.environment)
    hold, reached = once(lambda method, path: method == "PUT" and "step_00000006/shards/shard-00002" in path)
    bucket.hold = hold
    two.begin("train", *settings, *MIRRORED, "train.sharing=fsdp2")
    assert reached.wait(500), two.said() + two.said(1)
    two.kill()
    bucket.hold = lambda method, path: None
    assert bucket.read("a/checkpoints/last") == b"step_00000004\n"
    assert complete(bucket) == {"step_00000002", "step_00000004"}
    assert [rests(disk) for disk in two.disks] == [[".writing_step_00000006"]] * 2
    assert not list(two.disks[0].glob("a/checkpoints/step_*")), "half of one must have no name"
    three = machines([tmp_path / "new", *two.disks], bucket.environment)
    three.begin("train", *settings, *MIRRORED)
    assert three.end() == [0, 0, 0], three.said()
    assert "continuing at step 4 of 8" in three.said()
    assert_same(three.disks[0] / "a", whole, within=1e-4)
    assert [rests(disk) for disk in three.disks] == [[], [], []]
    assert complete(bucket) == {"step_00000006", "step_00000008"}


def test_a_machine_that_was_taken_for_dead_ends_once_another_has_gone_on_with_its_run(
    bucket: Bucket, machines: Make, settings: tuple[str, ...], whole: Path, tmp_path: Path
):
    bucket.hold, reached, released = stalled(
        lambda method, path: (
            method == "PUT" and path.endswith("a/checkpoints/step_00000004/model.safetensors")
        )
    )
    dead, new = (machines([tmp_path / name], bucket.environment) for name in ("dead", "new"))
    dead.begin("train", *settings, *MIRRORED)
    assert reached.wait(500), dead.said()
    new.begin("train", *settings, *MIRRORED)
    assert new.end() == [0], new.said()
    assert "continuing at step 2 of 8" in new.said()
    released.set()
    assert dead.end() == [2], dead.said()
    (sentence,) = dead.sentences()
    assert "goes on with this run since" in sentence and "'raymask resume' would take it back" in sentence
    assert_same(new.disks[0] / "a", whole, within=0)
    assert bucket.read("a/checkpoints/last") == b"step_00000008\n"
    assert complete(bucket) == {"step_00000006", "step_00000008"}


def test_machines_that_share_a_disk_beside_a_mirror_bring_the_run_back_once(
    bucket: Bucket, machines: Make, settings: tuple[str, ...], whole: Path, tmp_path: Path
):
    two = machines([tmp_path / "common"] * 2, bucket.environment)
    two.begin("train", *settings, *MIRRORED, "train.sharing=fsdp2")
    assert two.end() == [0, 0], two.said()
    shutil.rmtree(two.disks[0] / "a")
    bucket.write("a/checkpoints/last", b"step_00000006\n")  # as if it had died before the last one
    two.begin("train", *settings, *MIRRORED, "train.sharing=fsdp2")
    assert two.end() == [0, 0], two.said()
    assert "continuing at step 6 of 8" in two.said()
    assert_same(two.disks[0] / "a", whole, within=1e-4)
    assert rests(two.disks[0]) == [] and not list(two.disks[0].glob(".seen-*"))
    assert complete(bucket) == {"step_00000006", "step_00000008"}


def test_a_bucket_that_fails_ends_the_run_on_all_machines_with_a_sentence(
    bucket: Bucket, machines: Make, settings: tuple[str, ...], tmp_path: Path
):
    two = machines([tmp_path / "one", tmp_path / "two"], bucket.environment, python=("-c", IMPATIENT))
    bucket.hold, _ = once(lambda method, path: method == "PUT" and "step_00000006/shards/shard-00002" in path)
    two.begin("train", *settings, *MIRRORED, "train.sharing=fsdp2")
    assert two.end() == [1, 1], two.said() + two.said(1)
    assert any("cannot be exchanged with run.mirror=s3://bucket/runs/a: " in one for one in two.sentences())
    bucket.hold = lambda method, path: None
    assert bucket.read("a/checkpoints/last") == b"step_00000004\n"


@pytest.mark.parametrize("fault", FAULTS)
def test_what_a_disk_holds_outlives_a_bucket_that_fails_and_goes_there_later(
    fault: str,
    bucket: Bucket,
    settings: tuple[str, ...],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("raymask.bucket._PATIENCE", 0.5)
    monkeypatch.setattr(retry, "FIRST", 0.01)
    s3fs.S3FileSystem.clear_instance_cache()
    bucket.hold, _ = once(
        lambda method, path: method == "PUT" and "step_00000006/" in path, answer=FAULTS[fault]
    )
    config = load(settings[0], [*settings[1:], *MIRRORED, f"run.root={tmp_path}"])
    with pytest.raises(OSError, match=r"cannot be exchanged with run.mirror=s3://bucket/runs/a: .*") as said:
        train(config)
    assert "'raymask resume' goes on" in str(said.value) and SECRET not in str(said.value)
    run = tmp_path / "a"
    assert checkpoint.latest(run / "checkpoints") == run / "checkpoints" / "step_00000006"
    bucket.hold = lambda method, path: None
    assert bucket.read("a/checkpoints/last") == b"step_00000004\n"
    train(config)
    assert "continuing at step 6 of 8" in (run / "train.log").read_text()
    assert_same(run, whole, within=0)
    assert bucket.read("a/checkpoints/last") == b"step_00000008\n"
    assert bucket.read("a/metrics.jsonl") == (run / "metrics.jsonl").read_bytes()
    s3fs.S3FileSystem.clear_instance_cache()


def test_machines_that_share_neither_a_disk_nor_a_mirror_are_refused(
    machines: Make, settings: tuple[str, ...], tmp_path: Path
):
    two = machines([tmp_path / "one", tmp_path / "two"], {})
    two.begin("train", *settings)
    assert two.end() == [2, 2], two.said()
    assert len(two.sentences()) == 2
    for sentence in two.sentences():
        assert "worker 1 on " in sentence and "does not see run.root=" in sentence
        assert "run.mirror to a bucket such as s3://bucket/runs" in sentence
    assert not any(path for disk in two.disks for path in disk.iterdir()), "nothing is left"
