"""Where a run stands is what its own lines say."""

import json
import os
import time
from pathlib import Path

import pytest

from raymask.standing import of_search, standing


def write(folder: Path, *lines: dict) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def training(step: int, **more: object) -> dict:
    return {
        "step": step,
        "images": step * 8,
        "progress": step / 200,
        "loss": 2.5,
        "images_per_s": 40.0,
        **more,
    }


def test_nothing_was_written_yet(tmp_path: Path):
    assert standing(tmp_path) is None and of_search(tmp_path) == []


def test_the_time_left_is_the_images_left_at_the_last_pace(tmp_path: Path):
    write(tmp_path, training(10), training(50, images_per_s=20.0))
    found = standing(tmp_path)
    assert found is not None
    assert (found.step, found.steps, found.images_per_s, found.loss) == (50, 200, 20.0, 2.5)
    assert found.left == pytest.approx(150 * 8 / 20)
    assert found.evaluated_at is None and len(found.lines) == 1
    assert found.lines[0].startswith("step 50 of 200  loss 2.5  20 images/s  left 01:00  (written 00:0")


def test_the_last_evaluation_counts_even_between_lines_and_after_a_torn_one(tmp_path: Path):
    write(tmp_path, {"step": 0, "eval/knn5_top1": 20.0}, training(10), {"step": 10, "eval/knn5_top1": 41.25})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "ima')
    found = standing(tmp_path)
    assert found is not None and found.evaluated == {"knn5_top1": 41.25} and found.evaluated_at == 10
    assert found.lines[1] == "evaluated at step 10: knn5_top1 41.2500"


def test_a_run_that_has_ended_has_no_time_left_and_says_when(tmp_path: Path):
    write(tmp_path, training(200))
    os.utime(tmp_path / "metrics.jsonl", (0, time.time() - 3700))
    found = standing(tmp_path)
    assert found is not None and found.left == 0
    assert found.lines == ["step 200 of 200  loss 2.5  40 images/s  (written 1:01:40 ago)"]


def test_a_loss_that_was_not_finite_is_left_out(tmp_path: Path):
    write(tmp_path, training(10, loss=None, images_per_s=None))
    found = standing(tmp_path)
    assert found is not None and found.left is None and found.lines[0].startswith("step 10 of 200  (written")


def test_a_search_says_its_trials_and_the_best(tmp_path: Path):
    def trial(name: str, state: str, reached: float) -> dict:
        return {"id": name, "state": state, "curve": [[100, reached]], "params": {"ratio": 0.25}}

    results = {
        "metric": "eval/knn20_top1",
        "best": "t001",
        "trials": [trial("t000", "stopped", 30.0), trial("t001", "done", 52.5), trial("t002", "running", 10)],
    }
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert of_search(tmp_path) == [
        "3 trials: 1 stopped, 1 done, 1 running",
        "best: t001  eval/knn20_top1 52.5  ratio 0.25",
    ]
