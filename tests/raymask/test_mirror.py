"""A run whose disk is lost goes on from its mirror in a bucket."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
import torch

from pipelines.lock import lock
from pipelines.remote import retry, store
from raymask import checkpoint
from raymask.bucket import Bucket
from raymask.config import load
from raymask.context import LocalContext
from raymask.mirror import Mirror
from raymask.pace import TIMES
from raymask.run import LOCK
from raymask.train import resume, train
from raymask.world import World
from tests.raymask.tiny_run import RECIPE, pictures


@pytest.fixture
def bucket() -> str:
    """A bucket in this process's memory."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    return "memory://bucket/runs"


def config(folder: Path, *changes: str):
    """Eight steps of a tiny run, with a checkpoint every other one."""
    recipe = folder / "tiny.yaml"
    recipe.write_text(RECIPE)
    photos = folder / "pictures"
    if not photos.exists():
        pictures(photos)
    return load(
        str(recipe),
        [
            f"run.root={folder / 'disk'}",
            f"data={photos}",
            "train.steps=8",
            "train.checkpoint_images=24",
            *changes,
        ],
    )


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without what measures speed."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


def names_in(url: str) -> set[str]:
    files = fsspec.filesystem("memory")
    return {name.split("/runs/", 1)[1] for name in files.find(url.removeprefix("memory:/"))}


def test_a_run_whose_disk_is_lost_goes_on_from_its_mirror_as_if_nothing_had_happened(
    bucket: str, tmp_path: Path
):
    whole = train(config(tmp_path, "run.name=whole"))
    run = train(config(tmp_path, "run.name=a", f"run.mirror={bucket}"))
    steps = {name.split("/")[2] for name in names_in(bucket) if "/checkpoints/step_" in name}
    assert steps == {"step_00000006", "step_00000008"}, "as many as on the disk"
    # As if it had died after the checkpoint before the last, and the machine with it.
    fsspec.filesystem("memory").pipe("/bucket/runs/a/checkpoints/last", b"step_00000006\n")
    shutil.rmtree(run)
    again = train(config(tmp_path, "run.name=a", f"run.mirror={bucket}", "run.resume=true"))
    assert again == run and lines(again) == lines(whole)
    for name in ("model", "optimiser"):
        file = f"checkpoints/step_00000008/{name}.safetensors"
        assert (again / file).read_bytes() == (whole / file).read_bytes()
    assert {"a/config.yaml", "a/env.json", "a/metrics.jsonl", "a/train.log"} <= names_in(bucket)


def test_a_checkpoint_counts_in_the_mirror_only_once_all_of_it_is_there(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = train(config(tmp_path, "run.name=a", f"run.mirror={bucket}", "train.steps=2"))
    mirror, sent = Mirror(f"{bucket}/a"), Bucket.send

    def breaks(self: Bucket, path: Path, name: str) -> None:
        if name.endswith("optimiser.safetensors"):
            raise OSError("the line is cut")
        sent(self, path, name)

    monkeypatch.setattr(Bucket, "send", breaks)
    newest = run / "checkpoints" / "step_00000002"
    with pytest.raises(OSError, match="cut"):
        mirror.send_share(newest, "step_00000004", rank=0)
    shutil.rmtree(run)
    assert mirror.bring_latest(run, keep=1) == newest == checkpoint.latest(run / "checkpoints")


def test_a_name_that_is_taken_in_the_mirror_is_refused(bucket: str, tmp_path: Path):
    run = train(config(tmp_path, "run.name=a", f"run.mirror={bucket}", "train.steps=2"))
    shutil.rmtree(run)
    with pytest.raises(ValueError, match=r"holds a run named a: continue it with run.resume=true"):
        train(config(tmp_path, "run.name=a", f"run.mirror={bucket}", "train.steps=2"))
    assert not run.exists()


def test_a_mirror_that_cannot_be_reached_ends_the_run_with_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("raymask.bucket._PATIENCE", 0)
    monkeypatch.setattr(retry, "FIRST", 0.01)
    with pytest.raises(OSError, match=r"cannot be exchanged with run.mirror=http://127.0.0.1:9/runs"):
        train(config(tmp_path, "run.name=a", "run.mirror=http://127.0.0.1:9/runs"))
    assert not (tmp_path / "disk" / "a").exists()


def test_a_mirror_that_takes_nothing_leaves_no_run_behind(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def takes_nothing(self: Bucket, path: Path, name: str) -> None:
        raise OSError("access was denied")

    monkeypatch.setattr(Bucket, "send", takes_nothing)
    with pytest.raises(OSError, match="denied"):
        train(config(tmp_path, "run.name=a", f"run.mirror={bucket}"))
    assert not (tmp_path / "disk" / "a").exists()


@pytest.mark.parametrize(
    "given", ["bucket/runs", "s3://key:secret@bucket/runs", "s3://bucket/runs?X-Amz-Signature=secret"]
)
def test_what_is_no_plain_url_is_refused_without_repeating_a_password(given: str, tmp_path: Path):
    with pytest.raises(ValueError, match=r"run.mirror is .* give the URL of a folder") as caught:
        config(tmp_path, f"run.mirror={given}")
    assert "secret" not in str(caught.value)


def test_what_a_dead_attempt_left_of_a_checkpoint_is_removed_before_another_writes_it(
    bucket: str, tmp_path: Path
):
    mirror, shares = Mirror(f"{bucket}/a"), tmp_path / "shards"
    shares.mkdir()
    for rank in range(4):
        (shares / f"shard-{rank + 1:05d}-model.safetensors").write_bytes(b"old")
        mirror.send_share(tmp_path, "step_00000004", rank=rank)
    mirror.remove("step_00000004")
    mirror.send_share(tmp_path, "step_00000004", rank=0)
    left = [name for name in names_in(bucket) if "/shards/" in name]
    assert left == ["a/checkpoints/step_00000004/shards/shard-00001-model.safetensors"]


def test_the_lines_of_the_mirror_replace_older_ones_on_a_disk(bucket: str, tmp_path: Path):
    mirror, disk = Mirror(f"{bucket}/a"), tmp_path / "run"
    disk.mkdir()
    (disk / "config.yaml").write_text("{}")
    (disk / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n')
    mirror.send_run(disk)
    (disk / "metrics.jsonl").write_text('{"step": 1}\n')
    mirror.bring_run(disk)
    assert (disk / "metrics.jsonl").read_text().count("step") == 2


def on_disk(folder: Path, *steps: int, seed: int = 0) -> Path:
    """A run directory with these checkpoints, as small as can be."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(f"run: {{seed: {seed}}}\n")
    (folder / "metrics.jsonl").write_text("".join(f'{{"step": {step}}}\n' for step in steps))

    def save(into: Path) -> None:
        (into / "model.safetensors").write_text(f"weights {seed}")
        (into / "state.json").write_text(json.dumps({"step": step, "seed": seed}))

    for step in steps:
        checkpoint.write(folder / "checkpoints", step, save=save, keep=9)
    return folder


def sent(run: Path, bucket: str) -> Mirror:
    """A mirror with all of a run."""
    mirror = Mirror(f"{bucket}/a")
    mirror.catch_up(run)
    return mirror


def test_a_mirror_that_is_set_later_gets_all_that_another_machine_needs(bucket: str, tmp_path: Path):
    mirror = sent(on_disk(tmp_path / "one", 2, 4), bucket)
    mirror.bring_run(tmp_path / "two")
    assert mirror.bring_latest(tmp_path / "two", keep=1).name == "step_00000004"
    assert (tmp_path / "two" / "metrics.jsonl").read_text() == (
        tmp_path / "one" / "metrics.jsonl"
    ).read_text()


def test_the_end_of_a_run_comes_to_a_disk_that_lacks_its_last_checkpoint(bucket: str, tmp_path: Path):
    one, two = on_disk(tmp_path / "one", 2, 4), tmp_path / "two"
    mirror = sent(one, bucket)
    mirror.bring_run(two)  # as a worker that is not the first leaves a disk
    mirror.bring_end(two, keep=1)
    assert checkpoint.latest(two / "checkpoints").name == "step_00000004"
    (two / "metrics.jsonl").write_text("a line that came after the last checkpoint was sent")
    mirror.bring_end(two, keep=1)
    assert (two / "metrics.jsonl").read_text().startswith("a line")


def test_who_finds_another_signature_in_the_mirror_ends_and_completes_nothing_there(
    bucket: str, tmp_path: Path
):
    run = on_disk(tmp_path / "one", 2, 4)
    mirror = sent(on_disk(tmp_path / "two", 2), bucket)
    first, second = mirror.claimed(), mirror.claimed()
    newest = run / "checkpoints" / "step_00000004"
    with pytest.raises(ValueError, match=r"run.mirror=\S+/runs: \S+ goes on with this run since 20"):
        first.complete(newest, newest.name, keep=2)
    assert fsspec.filesystem("memory").cat("/bucket/runs/a/checkpoints/last") == b"step_00000002\n"
    second.complete(newest, newest.name, keep=2)
    assert fsspec.filesystem("memory").cat("/bucket/runs/a/checkpoints/last") == b"step_00000004\n"
    mirror.bring_run(tmp_path / "three")
    assert not (tmp_path / "three" / "owner.json").exists(), "a signature belongs to the bucket"


def test_who_is_refused_leaves_what_another_has_signed_and_removes_what_is_its_own(bucket: str):
    first = Mirror(f"{bucket}/a").claimed()
    fsspec.filesystem("memory").pipe("/bucket/runs/a/config.yaml", b"run: {}")
    second = first.claimed()
    first.discard_if_untrained()
    assert names_in(bucket) == {"a/config.yaml", "a/owner.json"}
    second.discard_if_untrained()
    assert not names_in(bucket)


def test_a_later_checkpoint_of_the_same_run_on_the_disk_goes_to_the_mirror(bucket: str, tmp_path: Path):
    sent(on_disk(tmp_path / "one", 2, 4), bucket)
    mirror = sent(on_disk(tmp_path / "two", 2, 4, 6), bucket)
    assert mirror.bring_latest(tmp_path / "three", keep=1).name == "step_00000006"
    sent(tmp_path / "one", bucket)  # of which the disk is behind
    assert mirror.bring_latest(tmp_path / "one", keep=9).name == "step_00000006"


def test_another_run_of_that_name_on_the_disk_is_refused_and_both_stay_as_they_are(
    bucket: str, tmp_path: Path
):
    sent(on_disk(tmp_path / "one", 2, 4), bucket)
    run, there = on_disk(tmp_path / "two", 2, 4, 6, seed=1), names_in(bucket)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    mirror = Mirror(f"{bucket}/a")
    for attempt in (mirror.catch_up, mirror.bring_run):
        with pytest.raises(ValueError, match=r"holds another run named two than .*rename one of the two"):
            attempt(run)
    assert names_in(bucket) == there
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_run_that_somebody_trains_is_left_alone_by_its_mirror(bucket: str, tmp_path: Path):
    given = config(tmp_path, f"run.mirror={bucket}", "run.name=run")
    run = train(given)
    with (run / "metrics.jsonl").open("a") as file:
        file.write("{}\n")  # of whoever trains
    before = (run / "metrics.jsonl").read_text()
    with (run / LOCK).open("ab") as held:
        lock(held, busy="")
        with pytest.raises(ValueError, match="another process trains in"):
            resume(run)
    assert (run / "metrics.jsonl").read_text() == before


def test_a_machine_that_is_only_visited_keeps_one_checkpoint(bucket: str, tmp_path: Path):
    for step in (2, 4, 6):
        mirror = sent(on_disk(tmp_path / str(step), *range(2, step + 1, 2)), bucket)
        mirror.bring_latest(tmp_path / "visited", keep=1)
    assert [path.name for path in checkpoint.steps(tmp_path / "visited" / "checkpoints")] == ["step_00000006"]


def test_in_the_mirror_only_a_whole_checkpoint_has_a_state_however_it_ends(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """After each request that changes something, as if there were no other after it."""
    run = on_disk(tmp_path / "one", 2)
    mirror, seen = sent(run, bucket), list[set[str]]()

    def watched(action: Callable[..., None]) -> Callable[..., None]:
        def act(*given: object) -> None:
            action(*given)
            seen.append(names_in(bucket))

        return act

    for name in ("send", "remove_below"):
        monkeypatch.setattr(store, name, watched(getattr(store, name)))
    for step in (4, 6):
        newest = checkpoint.latest(on_disk(tmp_path / str(step), step) / "checkpoints")
        mirror.send_share(newest, newest.name, rank=0)
        mirror.complete(newest, newest.name, keep=1)
    mirror.remove("step_00000006")
    assert len(seen) > 10
    for names in seen:
        states = {name.removesuffix("/state.json") for name in names if name.endswith("/state.json")}
        assert all(f"{state}/model.safetensors" in names for state in states), names
    assert "a/checkpoints/step_00000006/state.json" in seen[-3]


def test_what_attempts_left_in_the_mirror_is_cleaned_away(bucket: str, tmp_path: Path):
    mirror = sent(on_disk(tmp_path / "one", 2, 4), bucket)
    later = on_disk(tmp_path / "two", 6, 8) / "checkpoints"
    mirror.send_share(later / "step_00000006", "step_00000003", rank=0)  # half of one
    fsspec.filesystem("memory").put(
        str(later / "step_00000008"), "/bucket/runs/a/checkpoints/", recursive=True
    )
    mirror.clean()
    left = {name.split("/")[2] for name in names_in(bucket) if "/step_" in name}
    assert left == {"step_00000004"}
    assert mirror.bring_latest(tmp_path / "three", keep=1).name == "step_00000004"


def test_a_checkpoint_that_the_mirror_does_not_know_is_not_continued_from(bucket: str, tmp_path: Path):
    run = on_disk(tmp_path / "run", 2)
    local = LocalContext(run, world=World(), device=torch.device("cpu"), keep=1, mirror=Mirror(f"{bucket}/a"))
    with pytest.raises(ValueError, match=r"step_00000002, of which run.mirror knows nothing"), local.latest():
        pass


def test_a_run_that_is_refused_leaves_nothing_in_the_mirror_but_one_that_trained_does(
    bucket: str, tmp_path: Path
):
    run = on_disk(tmp_path / "run")
    (run / "metrics.jsonl").unlink()
    mirror = sent(run, bucket)
    assert mirror.holds_a_run()
    mirror.discard_if_untrained()
    assert not names_in(bucket)
    mirror = sent(on_disk(tmp_path / "trained", 2), bucket)
    mirror.discard_if_untrained()
    assert mirror.holds_a_run()
