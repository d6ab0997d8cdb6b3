"""An Aim repository holds a run once, however often the run was started."""

from pathlib import Path

import pytest

pytest.importorskip("aim")

from aim import Run

from raymask.trackers.aim import ToAim
from raymask.trackers.identity import Identity
from raymask.trackers.settings import Aim
from raymask.trackers.tracker import About

pytestmark = pytest.mark.filterwarnings("ignore")  # Aim's own


def tracker(folder: Path) -> ToAim:
    folder.mkdir(exist_ok=True)
    return ToAim(Aim(), About(folder, folder.name, {"run": {"seed": 3}}, 0, Identity(folder)))


def points(home: Path, run: str) -> dict[str, list[tuple[int, float]]]:
    """What the repository holds, by name; opened as a writer, since others see it after indexing only."""
    opened = Run(run, repo=str(home / "aim"), force_resume=True, system_tracking_interval=None)
    columns = {metric.name: metric.data for metric in opened.metrics()}
    found = {name: sorted(zip(data.indices_list(), data.values_list()[0])) for name, data in columns.items()}
    opened.close()
    return found


def test_metrics_the_name_and_the_config_arrive(tmp_path: Path):
    one = tracker(tmp_path / "a")
    one.log(5, {"loss": 2.5, "eval/knn20_top1": 50.0})
    one.log(10, {"loss": 2.25})
    assert one.run.name == "a" and one.run["config"] == {"run": {"seed": 3}}
    one.close()
    assert points(tmp_path, one.run.hash) == {
        "loss": [(5, 2.5), (10, 2.25)],
        "eval/knn20_top1": [(5, 50.0)],
    }


def test_a_run_that_goes_on_is_the_same_run_and_replaces_the_steps_that_it_repeats(tmp_path: Path):
    first = tracker(tmp_path / "a")
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    name = first.run.hash
    first.close()
    second = tracker(tmp_path / "a")
    assert second.run.hash == name
    for step in (3, 4):
        second.log(step, {"loss": -float(step)})
    second.close()
    assert points(tmp_path, name) == {"loss": [(1, 1.0), (2, 2.0), (3, -3.0), (4, -4.0)]}


def test_a_run_that_its_repository_has_lost_begins_a_new_one(tmp_path: Path):
    (tmp_path / "a").mkdir()
    Identity(tmp_path / "a").keep(f"aim {tmp_path / 'aim'}", "0" * 24)
    one = tracker(tmp_path / "a")
    one.log(1, {"loss": 1.0})
    assert one.run.hash != "0" * 24 and [metric.name for metric in one.run.metrics()] == ["loss"]
    one.close()
