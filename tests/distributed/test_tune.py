"""Searches on a real cluster: what trials are, what a population found, what a kill costs."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from raymask.config import load, read, to_tree
from raymask.distributed.tune import tune
from raymask.train import train
from tests.distributed.searching import given, results, trained

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]
PLACES = ("name", "root", "resume")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """As many threads here as a trial has, so that sums are added up in the same order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_places(tree: dict) -> dict:
    """A config without where it is written and what it found out as it began."""
    run = {key: value for key, value in tree["run"].items() if key not in PLACES}
    data = {key: value for key, value in tree["data"].items() if key != "augment"}
    return {**tree, "run": run, "data": data}


def test_a_search_leaves_ordinary_runs_and_the_best_as_a_preset(ray_cluster, tmp_path: Path):
    folder = tune("strategy", given(tmp_path, "budget=960", "trials=4", "checks=2", "name=search"))
    found = results(folder)
    assert found["metric"] == "eval/knn5_top1" and found["mode"] == "max"
    assert [trial["id"] for trial in found["trials"]] == ["t000", "t001", "t002", "t003"]
    for trial in found["trials"]:
        run = folder / trial["folder"]
        assert trial["state"] in ("done", "stopped")
        assert read(run / "config.yaml").train.steps == 20
        assert len(trained(run)) * 12 == trial["images"] <= 240
        assert trial["seconds"] > 0
        assert trial["curve"][-1] == [trial["images"], trial["metrics"]["eval/knn5_top1"]]
    best = load(str(folder / "best.yaml"))
    again = read(folder / "trials" / found["best"] / "config.yaml")
    assert without_places(to_tree(best)) == without_places(to_tree(again))
    assert found["best"] in found["front"]
    assert found["command"].startswith("raymask train")
    again = train(load(str(folder / "best.yaml"), [f"run.root={tmp_path}", "run.name=again"]))
    trial = folder / "trials" / found["best"]
    assert trained(again) == trained(trial)
    weights = "checkpoints/step_00000020/model.safetensors"
    assert (again / weights).read_bytes() == (trial / weights).read_bytes()


def test_a_schedule_that_a_population_found_trains_again_from_its_preset(ray_cluster, tmp_path: Path):
    words = ["budget=1440", "trials=4", "checks=6", "scheduler=pbt", "metric=effective_rank", "name=moved"]
    folder = tune("mask_ratio", given(tmp_path, *words))
    found = results(folder)
    assert {trial["state"] for trial in found["trials"]} == {"done"}, found["trials"]
    moved = [trial for trial in found["trials"] if len(trial["history"]) > 1]
    assert moved, "nobody was copied"
    kept = [len(list((folder / trial["folder"]).glob("checkpoints/step_*"))) for trial in found["trials"]]
    assert max(kept) <= 2
    for trial in moved[:2]:
        run = folder / trial["folder"]
        schedule = trial["values"]["mask.ratio"]
        assert schedule["kind"] == "steps"
        assert all(0.1 <= value <= 0.9 for value in schedule["values"])
        config = read(run / "config.yaml")
        alone = config.run.model_copy(update={"name": f"again-{trial['id']}", "root": str(tmp_path)})
        again = train(config.model_copy(update={"run": alone}))
        assert trained(again) == trained(run)


def test_two_objectives_leave_a_front(ray_cluster, tmp_path: Path):
    words = ["budget=480", "trials=4", "checks=1", "search=grid", "against=flops", "mask.kind=drop"]
    folder = tune("mask_ratio", given(tmp_path, *words, "name=front"))
    found = results(folder)
    assert [objective["name"] for objective in found["objectives"]] == ["eval/knn5_top1", "flops"]
    ended = {trial["id"]: trial for trial in found["trials"]}
    costs = [trial["costs"]["flops"] for trial in found["trials"]]
    assert costs == sorted(costs, reverse=True), "the more is hidden, the less is computed"
    assert found["best"] in found["front"]
    cheapest = min(ended.values(), key=lambda trial: trial["costs"]["flops"])
    assert cheapest["id"] in found["front"]


def test_a_search_goes_on_where_its_driver_was_killed(ray_cluster, tmp_path: Path):
    words = [
        *given(tmp_path, "budget=2880", "trials=4", "checks=4", "scheduler=none", "name=cut"),
        "at_once=1",
    ]
    folder, command = tmp_path / "cut", [sys.executable, "-m", "raymask", "tune", "mask_ratio", *words]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(lambda: len(_reported(folder)) >= 5)  # the second trial has a checkpoint
    finally:
        driver.kill()
        driver.wait()
    before = results(folder)["trials"]
    assert before[0]["state"] == "done" and before[-1]["state"] == "running"
    _forget_the_last_evaluations(folder)
    assert tune("mask_ratio", [*words, "run.resume=true"]) == folder
    after = results(folder)["trials"]
    assert [trial["id"] for trial in after] == ["t000", "t001", "t002", "t003"]
    assert {trial["state"] for trial in after} == {"done"}
    assert {**after[0], "seconds": 0} == {**before[0], "seconds": 0}, "nothing was left to train, but to tell"
    assert [trial["params"] for trial in after[: len(before)]] == [trial["params"] for trial in before]
    assert len({trial["params"]["ratio"] for trial in after}) == 4, "what was drawn before is drawn again"
    for trial in after:
        assert [images for images, _ in trial["curve"]] == [180, 360, 540, 720]
        assert [line[0] for line in trained(folder / trial["folder"])] == list(range(1, 61))
    with pytest.raises(ValueError, match=r"another search \(trials differ\)"):
        tune("mask_ratio", [*words, "trials=5", "run.resume=true"])


def _forget_the_last_evaluations(folder: Path) -> None:
    """As if the driver had been killed before it wrote down what its trials had just told it."""
    tree = results(folder)
    for trial in tree["trials"]:
        trial["curve"] = trial["curve"][:-1]
        trial["images"] = int(trial["curve"][-1][0]) if trial["curve"] else 0
        trial["state"] = "running"
    (folder / "results.json").write_text(json.dumps(tree))


def _reported(folder: Path) -> list:
    """Every evaluation that results.json knows."""
    written = (folder / "results.json").exists()
    return [point for trial in results(folder)["trials"] for point in trial["curve"]] if written else []


def _wait(happened: Callable[[], bool], *, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_a_trial_of_workers_reports_what_its_run_directory_says(ray_cluster, tmp_path: Path):
    words = [
        "budget=240",
        "trials=2",
        "checks=2",
        "scheduler=none",
        "workers=2",
        "cluster.cpus=1",
        "name=many",
    ]
    folder = tune("mask_ratio", given(tmp_path, *words))
    for trial in results(folder)["trials"]:
        assert trial["state"] == "done", trial["error"]
        assert [images for images, _ in trial["curve"]] == [60, 120]
        assert len(trained(folder / trial["folder"])) == 10


def test_a_population_of_workers_copies_runs_that_train_again_alone(ray_cluster, tmp_path: Path):
    # At this rate the rank soon falls and then stays, the lower the less is masked: one trial is behind.
    judged = ("metric=effective_rank", "optim.base_lr=0.1")
    words = ["budget=1920", "trials=2", "checks=8", "scheduler=pbt", *judged, "name=many"]
    folder = tune("mask_ratio", given(tmp_path, *words, "workers=1", "cluster.cpus=1"))
    found = results(folder)["trials"]
    assert {trial["state"] for trial in found} == {"done"}, found
    copied = next(trial for trial in found if len(trial["history"]) > 1)
    for trial in found:
        assert [images for images, _ in trial["curve"]][-1] == 960
    config = read(folder / copied["folder"] / "config.yaml")
    alone = config.model_copy(
        update={
            "run": config.run.model_copy(update={"name": "again", "root": str(tmp_path)}),
            "workers": None,
        }
    )
    assert trained(train(alone)) == trained(folder / copied["folder"])


def test_pb2_moves_a_population_within_its_bounds(ray_cluster, tmp_path: Path):
    words = ["budget=960", "trials=4", "checks=4", "scheduler=pb2", "metric=effective_rank", "name=pb2"]
    folder = tune("mask_ratio", given(tmp_path, *words))
    found = results(folder)["trials"]
    assert {trial["state"] for trial in found} == {"done"}
    held = [[values["mask.ratio"] for _, values in trial["history"]] for trial in found]
    assert len({ratios[0] for ratios in held}) < len(found), "nobody was copied"
    assert all(0.1 <= ratio <= 0.9 for ratios in held for ratio in ratios)
