"""A run whose disk is lost goes on from its mirror in a bucket."""

import json
import shutil
from pathlib import Path

import fsspec
import pytest

from pipelines.remote import retry
from raymask import checkpoint
from raymask.config import load
from raymask.mirror import Mirror
from raymask.pace import TIMES
from raymask.train import train
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
    mirror, sent = Mirror(f"{bucket}/a"), Mirror._send

    def breaks(self: Mirror, path: Path, name: str) -> None:
        if name.endswith("optimiser.safetensors"):
            raise OSError("the line is cut")
        sent(self, path, name)

    monkeypatch.setattr(Mirror, "_send", breaks)
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
    monkeypatch.setattr("raymask.mirror._PATIENCE", 0)
    monkeypatch.setattr(retry, "FIRST", 0.01)
    with pytest.raises(OSError, match=r"cannot be exchanged with run.mirror=http://127.0.0.1:9/runs"):
        train(config(tmp_path, "run.name=a", "run.mirror=http://127.0.0.1:9/runs"))


@pytest.mark.parametrize("given", ["bucket/runs", "s3://key:secret@bucket/runs"])
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
