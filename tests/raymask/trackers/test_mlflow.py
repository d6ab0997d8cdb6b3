"""An MLflow store holds a run once, however often the run was started."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mlflow")
pytest.importorskip("sqlalchemy")

from mlflow import MlflowClient

from raymask.trackers.identity import Identity
from raymask.trackers.mlflow import ToMLflow, flat
from raymask.trackers.settings import MLflow
from raymask.trackers.tracker import About

pytestmark = pytest.mark.filterwarnings("ignore")  # MLflow's own, and SQLAlchemy's about it


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without runs; laying one out takes MLflow seconds."""
    folder = tmp_path_factory.mktemp("empty")
    client(folder).search_experiments()
    return folder / "mlflow.db"


@pytest.fixture
def home(empty: Path, tmp_path: Path) -> Path:
    """A folder of runs with a store of its own."""
    shutil.copy(empty, tmp_path / "mlflow.db")
    return tmp_path


def tracker(folder: Path, **settings: str) -> ToMLflow:
    folder.mkdir(exist_ok=True)
    config = {"run": {"seed": 3}, "mask": {"ratio": 0.5, "long": "x" * 900}}
    return ToMLflow(MLflow(**settings), About(folder, folder.name, config, 0, Identity(folder)))


def client(folder: Path) -> MlflowClient:
    return MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")


def points(folder: Path, run: str, name: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client(folder).get_metric_history(run, name)]


def test_metrics_and_the_config_arrive(home: Path):
    one = tracker(home / "a")
    one.log(5, {"loss": 2.5, "eval/knn20_top1": 50.0})
    one.log(10, {"loss": 2.25})
    one.close()
    run = client(home).get_run(one.run)
    assert run.info.run_name == "a" and run.info.status == "FINISHED"
    assert run.data.params["run.seed"] == "3" and len(run.data.params["mask.long"]) == 500
    assert points(home, one.run, "loss") == [(5, 2.5), (10, 2.25)]
    assert points(home, one.run, "eval/knn20_top1") == [(5, 50.0)]


def test_a_run_that_goes_on_is_the_same_run_and_no_step_comes_twice(home: Path):
    first = tracker(home / "a")
    for step in (1, 2, 3):
        first.log(step, {"loss": float(step)})
    second = tracker(home / "a")  # the first was killed: nobody closed it
    assert second.run == first.run and client(home).get_run(first.run).info.status == "RUNNING"
    for step in (2, 3, 4):
        second.log(step, {"loss": float(step), "lr": 0.5})
    second.close()
    assert points(home, first.run, "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0)]
    assert points(home, first.run, "lr") == [(2, 0.5), (3, 0.5), (4, 0.5)]
    experiment = client(home).get_experiment_by_name("raymask").experiment_id
    assert len(client(home).search_runs([experiment])) == 1


def test_another_store_gets_a_run_of_its_own(home: Path):
    first, other = tracker(home / "a"), f"sqlite:///{home / 'other.db'}"
    shutil.copy(home / "mlflow.db", home / "other.db")
    second = tracker(home / "a", uri=other)
    assert second.run != first.run and tracker(home / "a", uri=other).run == second.run


SCRIPT = """
import sys, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from tests.raymask.trackers.test_mlflow import tracker
one = tracker(Path(sys.argv[1]))
one.log(1, {"loss": 1.0})
one.close()
"""


@pytest.mark.slow
def test_runs_that_begin_together_share_one_new_store(tmp_path: Path):
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", SCRIPT]
    both = [
        subprocess.Popen([*command, str(tmp_path / name)], cwd=root, stderr=subprocess.PIPE) for name in "ab"
    ]
    for one in both:
        _, said = one.communicate(timeout=280)
        assert one.returncode == 0, said.decode()
    experiment = client(tmp_path).get_experiment_by_name("raymask").experiment_id
    assert {run.info.run_name for run in client(tmp_path).search_runs([experiment])} == {"a", "b"}


def test_a_config_is_flattened_to_dotted_keys():
    assert dict(flat({"a": {"b": 1, "c": {"d": None}}, "e": [1]})) == {"a.b": 1, "a.c.d": None, "e": [1]}
