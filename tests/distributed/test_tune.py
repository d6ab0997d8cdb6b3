"""Searches on a real cluster: what trials are, what a population found, what a kill costs."""

from pathlib import Path

import pytest

from raymask.config import load, read, to_tree
from raymask.distributed.tune import tune
from raymask.train import train
from tests.distributed.searching import given, results, trained

pytestmark = [pytest.mark.ray, pytest.mark.slow]
PLACES = ("name", "root", "resume")


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
    assert found["front"] == [found["best"]] or found["best"] in found["front"]
    assert found["command"].startswith("raymask train")


def test_a_schedule_that_a_population_found_trains_again_from_its_preset(ray_cluster, tmp_path: Path):
    words = ["budget=1440", "trials=4", "checks=6", "scheduler=pbt", "metric=effective_rank", "name=moved"]
    folder = tune("mask_ratio", given(tmp_path, *words))
    found = results(folder)
    assert {trial["state"] for trial in found["trials"]} == {"done"}, found["trials"]
    moved = [trial for trial in found["trials"] if len(trial["history"]) > 1]
    assert moved, "nobody was copied"
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
