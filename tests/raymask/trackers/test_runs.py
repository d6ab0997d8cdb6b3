"""Runs that are followed: everything arrives, and nothing that fails there reaches the run."""

import json
import time
from pathlib import Path

import pytest

from raymask.config import load
from raymask.metrics import read
from raymask.trackers import apart, open_trackers, opening
from raymask.trackers.settings import MLflow, TensorBoard
from raymask.train import resume, train
from tests.raymask.tiny_run import RECIPE, pictures

pytestmark = pytest.mark.filterwarnings("ignore")  # the trackers' own


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    pictures(tmp_path / "pictures")
    return str(tmp_path / "tiny.yaml")


def config(recipe: str, *changes: str):
    folder = Path(recipe).parent
    return load(recipe, [f"run.root={folder / 'runs'}", "run.name=a", f"data={folder}/pictures", *changes])


def test_a_run_and_its_continuation_are_one_run_with_every_line_once(recipe: str):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    from tests.raymask.trackers.test_mlflow import client, points
    from tests.raymask.trackers.test_tensorboard import shown

    run = train(
        config(recipe, "track=[tensorboard, mlflow]", "train.log_steps=1", "train.checkpoint_images=24")
    )
    known = who(run)
    cut_back(run, step=2)
    resume(run)
    assert who(run) == known and set(known) > {"id"}
    assert "does not follow" not in (run / "train.log").read_text()
    lines = list(read(run / "metrics.jsonl"))
    (experiment,) = [one for one in client(run.parent).search_experiments() if one.name == "raymask"]
    (followed,) = client(run.parent).search_runs([experiment.experiment_id])
    for name in ("loss", "lr", "mask_ratio", "images_per_s", "eval/effective_rank"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        if name != "images_per_s":  # a time: MLflow keeps the first, of the start that was cut off
            assert points(run.parent, followed.info.run_id, name) == expected
        assert shown(run, name) == expected
    assert followed.info.status == "FINISHED" and not list((run / "tensorboard").glob("**/mlruns"))


def who(run: Path) -> dict[str, str]:
    """Who the run is to its trackers."""
    known = json.loads((run / "trackers.json").read_text())
    return {where: name for where, name in known.items() if not where.startswith("reached")}


def test_a_tracker_that_is_asked_for_later_gets_what_was_before(recipe: str):
    pytest.importorskip("tensorboard")
    from tests.raymask.trackers.test_tensorboard import shown

    run = train(config(recipe, "train.log_steps=1"))
    resume(run, ["track=tensorboard"])
    lines = list(read(run / "metrics.jsonl"))
    for name in ("loss", "eval/effective_rank"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        assert shown(run, name) == expected


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_run_that_was_killed_has_every_line_in_each_tracker_once(photos: Path, tmp_path: Path):
    """Killed while MLflow may still be starting, so that what it missed has to be told later."""
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    from tests.raymask.test_resume import SETTINGS, finish, kill_when, last_step, start
    from tests.raymask.trackers.test_mlflow import client, points
    from tests.raymask.trackers.test_tensorboard import shown

    run = tmp_path / "runs" / "a"
    words = (
        "train",
        "dino-random-mask",
        *SETTINGS,
        f"data={photos}",
        "run.name=a",
        "track=[tensorboard, mlflow]",
    )
    kill_when(start(tmp_path, *words), lambda: last_step(run) >= 5)
    kill_when(start(tmp_path, "resume", str(run)), lambda: last_step(run) >= 15)
    finish(start(tmp_path, "resume", str(run)), tmp_path)
    assert "does not follow" not in (run / "train.log").read_text()
    lines = list(read(run / "metrics.jsonl"))
    (experiment,) = [one for one in client(run.parent).search_experiments() if one.name == "raymask"]
    (followed,) = client(run.parent).search_runs([experiment.experiment_id])
    for name in ("loss", "grad_norm", "eval/effective_rank"):
        expected = [(line["step"], pytest.approx(line[name], rel=1e-6)) for line in lines if name in line]
        assert len(expected) > 3 and shown(run, name) == expected
        assert points(run.parent, followed.info.run_id, name) == expected


def cut_back(run: Path, *, step: int) -> None:
    """As if the run had been killed after more than its checkpoint of `step`."""
    (run / "checkpoints" / "last").write_text(f"step_{step:08d}\n")
    assert (run / "checkpoints" / f"step_{step:08d}").is_dir()


def test_a_tracker_that_cannot_open_is_said_once_and_the_run_goes_on(recipe: str):
    pytest.importorskip("mlflow")
    store = f"sqlite:///{recipe}/mlflow.db"  # below what is no folder
    run = train(config(recipe, f"track=[{{kind: mlflow, uri: '{store}'}}]"))
    log = (run / "train.log").read_text()
    assert log.count("mlflow does not follow this run: ") == 1
    assert "metrics.jsonl has everything, and the run goes on" in log and "done: " in log


def test_a_package_that_is_missing_is_said_before_anything_is_written(recipe: str, monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    with pytest.raises(
        ValueError,
        match=r"track=aim needs aim, which this Python does not have: pip install 'raymask\[aim\]'",
    ):
        train(config(recipe, "track=aim"))
    assert not (Path(recipe).parent / "runs").exists()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("track=tensorbord", "did you mean 'tensorboard'"),
        ("track=[{kind: mlflow, uri: 'https://me:secret@host'}]", "set MLFLOW_TRACKING_USERNAME"),
    ],
)
def test_what_is_no_tracker_is_refused(recipe: str, given: str, sentence: str):
    with pytest.raises(ValueError, match=sentence) as refused:
        config(recipe, given)
    assert "secret" not in str(refused.value)


class Recorder:
    """A tracker for the tests of what surrounds it."""

    def __init__(self, *, fails_at: int | None = None, takes: float = 0) -> None:
        self.lines: list[tuple[int, dict]] = []
        self.fails_at, self.takes, self.closed = fails_at, takes, False

    def log(self, step, metrics):
        time.sleep(self.takes)
        if step == self.fails_at:
            raise RuntimeError("the server is gone\nand more")
        self.lines.append((step, metrics))

    def close(self):
        self.closed = True


def said() -> tuple[list[tuple[str, str]], object]:
    found: list[tuple[str, str]] = []
    return found, lambda topic, text: (topic, text) in found or found.append((topic, text))


def test_lines_arrive_in_order_and_the_end_waits_for_them():
    (heard, say), recorder = said(), Recorder(takes=0.01)
    one = apart.Apart("x", lambda: recorder, say=say)
    for step in range(20):
        one.log(step, {"loss": 1.0})
    one.close()
    assert [step for step, _ in recorder.lines] == list(range(20)) and recorder.closed and not heard


def test_a_failure_on_the_way_is_told_once_with_its_first_line():
    (heard, say), recorder = said(), Recorder(fails_at=3)
    one = apart.Apart("x", lambda: recorder, say=say)
    for step in range(10):
        one.log(step, {})
    one.close()
    assert [step for step, _ in recorder.lines] == [0, 1, 2]
    assert heard == [
        (
            "track-x",
            "x does not follow this run: RuntimeError: the server is gone; "
            "metrics.jsonl has everything, and the run goes on",
        )
    ]


def test_training_does_not_wait_for_a_slow_tracker_and_its_user_is_told(monkeypatch):
    monkeypatch.setattr(apart, "WAITING", 3)
    monkeypatch.setattr(apart, "PATIENCE", 0.2)
    (heard, say), recorder = said(), Recorder(takes=0.5)
    one, begun = apart.Apart("x", lambda: recorder, say=say), time.monotonic()
    for step in range(50):
        one.log(step, {})
    assert time.monotonic() - begun < 5, "25 seconds of work"
    one.close()
    assert time.monotonic() - begun < 10
    assert "is slow and does not get every line" in heard[0][1] and "not done after" in heard[-1][1]


def test_only_numbers_that_are_finite_reach_a_tracker():
    recorder = Recorder()
    opening.Trackers([recorder]).log(
        7, {"step": 7, "loss": float("nan"), "lr": 1, "samples": "0f", "x": None, "y": 0.5}
    )
    assert recorder.lines == [(7, {"lr": 1.0, "y": 0.5})]


def test_each_tracker_keeps_its_own_name_of_the_run(tmp_path: Path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("mlflow")
    known = []
    for _ in range(2):
        (heard, say) = said()
        tracks = (TensorBoard(), MLflow())
        opened = open_trackers(tracks, tmp_path, name="a", config={}, begin=0, say=say)
        opened.log(1, {"loss": 1.0})
        opened.close()
        assert not heard
        known.append(who(tmp_path))
    assert known[0] == known[1] and len(known[0]) == 2 and len(known[0]["id"]) == 16
