"""Where a run stands is what its own lines say."""

import json
import os
import sys
import time
from pathlib import Path

import pytest

from pipelines.lock import lock
from raymask.cli import main
from raymask.headline import headline
from raymask.run import LOCK
from raymask.signals import ask_to_stop
from raymask.standing import described, evaluated, standing, state_of


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
    assert standing(tmp_path) is None
    assert described(tmp_path, state_of(tmp_path)) == [
        "stopped",
        "nothing was trained yet",
        "it has no checkpoint yet",
        f"next: raymask resume {tmp_path}",
    ]


def test_the_time_left_is_the_images_left_at_the_last_pace(tmp_path: Path):
    write(tmp_path, training(10), training(50, images_per_s=20.0))
    found = standing(tmp_path)
    assert found is not None
    assert (found.step, found.steps, found.images_per_s, found.loss) == (50, 200, 20.0, 2.5)
    assert found.left == pytest.approx(150 * 8 / 20)
    assert found.line(runs=True).startswith(
        "step 50 of 200, 400 of 1,600 images  loss 2.5  20 images/s  left 01:00  (written 00:0"
    )
    assert found.line(runs=False).startswith("step 50 of 200, 400 of 1,600 images  loss 2.5  (written")


def test_the_last_evaluation_counts_even_between_lines_and_after_a_torn_one(tmp_path: Path):
    write(tmp_path, {"step": 0, "eval/knn5_top1": 20.0}, training(10), {"step": 10, "eval/knn5_top1": 41.25})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 11, "ima')
    assert evaluated(tmp_path) == "evaluated at step 10: knn5_top1 41.25"
    assert described(tmp_path, "running")[2] == "evaluated at step 10: knn5_top1 41.25"


def test_before_the_first_line_of_training_the_evaluation_of_the_start_is_said(tmp_path: Path):
    write(tmp_path, {"step": 0, "eval/knn5_top1": 20.0})
    _, *said, _ = described(tmp_path, "running")
    assert said == [
        "the first line of training is not written yet",
        "evaluated at step 0: knn5_top1 20",
    ]


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        (
            {"feature_std": 0.9, "effective_rank": 3.38791, "knn10_top1": 1.0, "knn20_top1": 31.25},
            "knn20_top1 31.25  effective_rank 3.388",
        ),
        ({"knn7_top1": 1.0, "knn7_top5": 2.0, "knn9_top1": 3.0}, "knn7_top1 1"),
        ({"knn20_top1": 1.0, "linear_top1": 2.0, "finetune_top1": None}, "knn20_top1 1  linear_top1 2"),
        ({"knn20_top1": 1.0, "top1": 2.0, "top5": 3.0}, "top1 2  knn20_top1 1"),
        ({"lidar": 7.0, "feature_std": 0.5}, "lidar 7  feature_std 0.5"),
    ],
)
def test_of_an_evaluation_a_terminal_shows_what_a_person_follows(measured: dict, said: str):
    assert headline({f"eval/{name}": value for name, value in measured.items()}) == said


def test_a_run_that_has_ended_has_no_time_left_and_says_when(tmp_path: Path):
    write(tmp_path, training(200))
    os.utime(tmp_path / "metrics.jsonl", (0, time.time() - 3700))
    found = standing(tmp_path)
    assert found is not None and found.left == 0
    assert found.line(runs=False) == "step 200 of 200, 1,600 of 1,600 images  loss 2.5  (written 1:01:40 ago)"


def test_a_loss_that_was_not_finite_is_left_out(tmp_path: Path):
    write(tmp_path, training(10, loss=None, images_per_s=None))
    found = standing(tmp_path)
    assert (
        found is not None
        and found.left is None
        and found.line(runs=True).startswith("step 10 of 200, 80 of 1,600 images  (written")
    )


def checkpoint(run: Path, step: int) -> None:
    folder = run / "checkpoints" / f"step_{step:08d}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")


def test_a_run_runs_while_somebody_holds_its_lock(tmp_path: Path):
    write(tmp_path, training(50))
    checkpoint(tmp_path, 40)
    assert state_of(tmp_path) == "stopped"
    assert "its last checkpoint is of step 40" in described(tmp_path, "stopped")
    with (tmp_path / LOCK).open("ab") as file:
        lock(file, busy="")
        assert state_of(tmp_path) == "running"
        assert described(tmp_path, "running")[-1] == f"next: raymask stop {tmp_path}"
        ask_to_stop(tmp_path)
        assert state_of(tmp_path) == "stopping"
    assert state_of(tmp_path) == "stopped"


def test_a_run_is_finished_once_its_last_step_is_saved(tmp_path: Path):
    write(tmp_path, training(200))
    checkpoint(tmp_path, 150)
    assert state_of(tmp_path) == "stopped"
    checkpoint(tmp_path, 200)
    assert state_of(tmp_path) == "finished"
    assert (
        described(tmp_path, "finished")[-1] == f"next: raymask report {tmp_path}, raymask evaluate {tmp_path}"
    )


def test_a_search_says_its_trials_the_best_and_where_the_others_are(tmp_path: Path):
    def trial(name: str, state: str, reached: float) -> dict:
        where = {"id": name, "folder": f"trials/{name}"}
        return {**where, "state": state, "curve": [[100, reached]], "params": {"ratio": 0.25}}

    results = {
        "metric": "eval/knn20_top1",
        "best": "t001",
        "trials": [trial("t000", "stopped", 30.0), trial("t001", "done", 52.5), trial("t002", "running", 10)],
    }
    (tmp_path / "search.yaml").write_text("search: {trials: 4}")
    (tmp_path / "results.json").write_text(json.dumps(results))
    (tmp_path / "trials").mkdir()
    write(tmp_path / "trials" / "t002", training(50))
    assert state_of(tmp_path) == "stopped"
    _, trials, best, third, then = described(tmp_path, "stopped")
    assert trials == "3 of 4 trials begun: 1 stopped, 1 done, 1 to go on with"
    assert best == "best: t001  eval/knn20_top1 52.5  ratio 0.25"
    assert third.startswith("t002: step 50 of 200, 400 of 1,600 images")
    assert then == f"next: raymask resume {tmp_path}"
    (tmp_path / "best.yaml").touch()
    assert state_of(tmp_path) == "finished"
    assert described(tmp_path, "finished")[-1].endswith(f"raymask train {tmp_path / 'best.yaml'}")


def test_a_finished_run_is_not_resumed_but_said_to_be_with_what_can_be_done(
    tmp_path: Path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    run = Path("runs/a")
    run.mkdir(parents=True)
    (run / "config.yaml").write_text("{}")
    write(run, training(200))
    checkpoint(run, 200)
    monkeypatch.setattr(sys, "argv", ["raymask", "resume", "a"])
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    said = capsys.readouterr().out
    assert said.startswith("runs/a is finished: see 'raymask evaluate runs/a'") and "train.epochs=N" in said
