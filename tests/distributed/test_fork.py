"""A trial that becomes a copy of another: in one go, and without taking the past from a third one."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.lock import lock
from raymask import checkpoint
from raymask.config import Config, read
from raymask.distributed import fork
from raymask.distributed.account import Pointer, evaluations, note, noted
from raymask.metrics import read as lines
from tests.raymask.tiny_run import tiny_run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three trials of four steps with a checkpoint after two and four, which differ by their seeds."""
    folder = tmp_path_factory.mktemp("search")
    for seed, name in enumerate("abc"):
        words = (f"run.name={name}", f"run.seed={seed}", "train.keep=5", "train.checkpoint_images=24")
        tiny_run(folder, *words)
        note(folder / name, Pointer(name, 4, history=[[0, {"mask.ratio": seed / 10}]]))
    return folder


@pytest.fixture
def trials(made: Path, tmp_path: Path) -> Path:
    """A copy of them that may be changed."""
    for name in "abc":
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def config_of(folder: Path) -> Config:
    return read(folder / "config.yaml")


def copy(trials: Path, donor: Pointer, name: str) -> None:
    """Replaces the run of trial `name`."""
    folder = trials / name
    fork.copy_run(donor, folder, config_of(trials / donor.trial), known=Pointer(name, donor.step, turn=1))


def weights(folder: Path, step: int) -> bytes:
    return (folder / "checkpoints" / checkpoint.step_name(step) / "model.safetensors").read_bytes()


def test_a_copy_is_the_donor_as_it_was_at_its_checkpoint(trials: Path):
    (trials / "a" / "train.log").write_text("what was said of a\n")
    (trials / "a" / "trackers.json").write_text("known there as a")
    copy(trials, Pointer("b", 2), "a")
    assert weights(trials / "a", 2) == weights(trials / "b", 2)
    assert checkpoint.latest(trials / "a" / "checkpoints") == trials / "a" / "checkpoints" / "step_00000002"
    assert [line["step"] for line in lines(trials / "a" / "metrics.jsonl")][-1] == 2
    assert (trials / "a" / "train.log").read_text() == "what was said of a\n"
    assert (trials / "a" / "trackers.json").read_text() == "known there as a"
    assert noted(trials / "a") == Pointer("a", 2, turn=1)
    assert fork.turns(trials / "a") == 1 and fork.turns(trials / "b") == 0


def test_who_was_replaced_can_still_be_copied_as_it_was(trials: Path):
    before = weights(trials / "b", 4)
    copy(trials, Pointer("c", 4), "b")
    assert weights(trials / "b", 4) == weights(trials / "c", 4) != before
    copy(trials, Pointer("b", 4), "a")  # of its first turn, which Tune may still ask for
    assert weights(trials / "a", 4) == before
    copy(trials, Pointer("b", 4, turn=1), "c")
    assert weights(trials / "c", 4) != before


def test_a_copy_that_was_killed_halfway_leaves_the_run_of_before(trials: Path, monkeypatch):
    before, history = weights(trials / "a", 4), noted(trials / "a")

    def killed(folder: Path, config: Config) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(fork, "_rewrite", killed)
        copy(trials, Pointer("b", 2), "a")
    assert (trials / ".copy_a").exists()
    fork.settle(trials / "a")
    assert not (trials / ".copy_a").exists()
    assert weights(trials / "a", 4) == before and noted(trials / "a") == history
    copy(trials, Pointer("b", 2), "a")
    assert weights(trials / "a", 2) == weights(trials / "b", 2)


def test_a_copy_that_was_killed_between_its_renamings_is_completed(trials: Path):
    copy(trials, Pointer("b", 2), "a")
    (trials / "a").rename(trials / ".copy_a")
    fork.settle(trials / "a")
    assert weights(trials / "a", 2) == weights(trials / "b", 2)


def test_a_run_in_which_another_process_trains_is_not_replaced(trials: Path, monkeypatch):
    monkeypatch.setattr(fork, "PATIENCE", 0)
    before = weights(trials / "a", 4)
    with (trials / "a" / ".lock").open("ab") as held:
        lock(held, busy="")
        with pytest.raises(ValueError, match="another process trains in"):
            copy(trials, Pointer("b", 2), "a")
        with pytest.raises(ValueError, match="another process trains in"):
            fork.rewrite(trials / "a", config_of(trials / "b"))
    assert weights(trials / "a", 4) == before


def test_the_past_of_a_population_is_removed_at_its_end(trials: Path):
    copy(trials, Pointer("b", 2), "a")
    fork.prune([trials / name for name in "abc"], keep=1)
    assert sorted(path.name for path in trials.iterdir() if path.is_dir()) == ["a", "b", "c"]
    assert [path.name for path in checkpoint.steps(trials / "b" / "checkpoints")] == ["step_00000004"]


def test_evaluations_are_told_as_far_as_checkpoints_go(trials: Path):
    run = trials / "a"
    assert [step for step, _ in evaluations(run, after=0)] == [2, 4]
    assert [step for step, _ in evaluations(run, after=2)] == [4]
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({"step": 6, "eval/knn5_top1": 50.0}) + "\n")
    assert [step for step, _ in evaluations(run, after=0)] == [2, 4], "a checkpoint of step 6 is not there"
