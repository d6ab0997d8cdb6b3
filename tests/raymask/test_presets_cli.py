"""The command line trains, stops, resumes and evaluates every preset on the demo's images."""

import json
import signal
import sys
import threading
from pathlib import Path

import pytest

from raymask import presets
from raymask.cli import main
from raymask.demo import FASHION
from tests.raymask.test_train import interrupt_after_the_first_step


def raymask(*arguments: object) -> int:
    """The exit code of a command line, in this process."""
    before, sys.argv = sys.argv, ["raymask", *map(str, arguments)]
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's images, packed as a user packs them."""
    folder = tmp_path_factory.mktemp("demo") / "shards"
    assert raymask("pack", FASHION, folder, "holdout=0.2") == 0
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.names())
def test_every_preset_trains_resumes_and_evaluates_on_the_demo_s_images(
    name: str, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    run = tmp_path / "run"
    threading.Thread(target=interrupt_after_the_first_step, args=(run,)).start()
    small = ("debug=true", "train.steps=3", f"run.root={tmp_path}", "run.name=run")
    assert raymask("train", name + presets.LAPTOP, f"data={shards}", *small) == 128 + signal.SIGTERM
    assert raymask("resume", run) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3]
    capsys.readouterr()
    assert raymask("evaluate", run, "evaluate.linear=true") == 0
    said = capsys.readouterr().out
    assert "knn5_top1" in said and "linear_top1" in said
