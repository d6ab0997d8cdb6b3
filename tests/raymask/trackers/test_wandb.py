"""W&B gets a run under the run's own id; offline where nobody has logged in."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from raymask.trackers.identity import Identity
from raymask.trackers.settings import WeightsAndBiases
from raymask.trackers.tracker import About
from raymask.trackers.wandb import ToWandb, logged_in

pytestmark = pytest.mark.filterwarnings("ignore")  # W&B's own


@pytest.fixture(autouse=True)
def _nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nobody has logged in, and nothing is written to the home of who runs this."""
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()


def tracker(folder: Path) -> ToWandb:
    folder.mkdir(exist_ok=True)
    return ToWandb(WeightsAndBiases(), About(folder, "a", {"run": {"seed": 3}}, 0, Identity(folder)))


def records(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format after seven bytes of its own."""
    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def history(folder: Path) -> list[tuple[str, list[dict]]]:
    """For each start of the run: its id and what was logged."""
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for file in sorted((folder / "wandb").glob("offline-run-*/*.wandb")):
        run, rows = "", []
        for data in records(file):
            record = Record.FromString(data)
            run = record.run.run_id or run
            if record.HasField("history"):
                items = {
                    item.key or ".".join(item.nested_key): item.value_json for item in record.history.item
                }
                rows.append({name: json.loads(value) for name, value in items.items() if name[0] != "_"})
                rows[-1]["step"] = record.history.step.num
        found.append((run, rows))
    return found


def test_offline_each_start_of_a_run_keeps_its_lines_under_one_id(tmp_path: Path):
    pytest.importorskip("wandb")
    first = tracker(tmp_path / "run")
    first.log(1, {"loss": 1.0})
    first.log(2, {"loss": 2.0})
    first.log(2, {"eval/knn20_top1": 50.0})
    first.close()
    second = tracker(tmp_path / "run")
    second.log(3, {"loss": 3.0})
    second.close()
    own = Identity(tmp_path / "run").id
    assert history(tmp_path / "run") == [
        (own, [{"loss": 1.0, "step": 1}, {"loss": 2.0, "eval/knn20_top1": 50.0, "step": 2}]),
        (own, [{"loss": 3.0, "step": 3}]),
    ]


def test_who_has_logged_in_is_known_by_key_or_netrc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    assert not logged_in()
    (tmp_path / "home" / ".netrc").write_text("machine api.wandb.ai\n login user\n password x\n")
    (tmp_path / "home" / ".netrc").chmod(0o600)
    assert logged_in()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not logged_in()
    monkeypatch.setenv("WANDB_API_KEY", "x")
    assert logged_in()
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert not logged_in()
