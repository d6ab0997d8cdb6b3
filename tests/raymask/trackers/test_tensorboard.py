"""TensorBoard shows what metrics.jsonl holds, also after a run was killed and went on."""

from pathlib import Path

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from raymask.trackers.identity import Identity
from raymask.trackers.settings import TensorBoard
from raymask.trackers.tensorboard import ToTensorBoard
from raymask.trackers.tracker import About

pytestmark = pytest.mark.filterwarnings("ignore")  # TensorBoard's own


def tracker(folder: Path, *, begin: int = 0) -> ToTensorBoard:
    folder.mkdir(exist_ok=True)
    config = {"run": {"seed": 3}}
    return ToTensorBoard(TensorBoard(), About(folder, "a", config, begin, Identity(folder)))


def shown(folder: Path, name: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def test_scalars_arrive_under_their_names_at_their_steps(tmp_path: Path):
    one = tracker(tmp_path / "run")
    one.log(5, {"loss": 2.5, "eval/knn20_top1": 50.0})
    one.log(10, {"loss": 2.25})
    one.close()
    assert shown(tmp_path / "run", "loss") == [(5, 2.5), (10, 2.25)]
    assert shown(tmp_path / "run", "eval/knn20_top1") == [(5, 50.0)]


def test_a_run_that_goes_on_purges_what_lies_beyond_its_checkpoint(tmp_path: Path):
    first = tracker(tmp_path / "run")
    for step in range(1, 9):
        first.log(step, {"loss": float(step)})
    first.close()
    second = tracker(tmp_path / "run", begin=5)  # its checkpoint is of step 4
    second.log(5, {"loss": -5.0})
    second.close()
    assert shown(tmp_path / "run", "loss") == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, -5.0)]


def test_the_config_is_there_to_read(tmp_path: Path):
    tracker(tmp_path / "run").close()
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    (text,) = events.Tensors("config/text_summary")
    assert b"seed: 3" in text.tensor_proto.string_val[0]
