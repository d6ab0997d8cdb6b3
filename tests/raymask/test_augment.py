"""Where crops are made changes neither what is trained on nor how a run goes on."""

import json
from pathlib import Path

import pytest

from raymask.augment import choose
from raymask.config import read
from raymask.pace import TIMES
from raymask.train import resume
from tests.raymask.tiny_run import pictures, tiny_run


def training_lines(run: Path) -> list[dict]:
    found = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found if "loss" in line]


def run(folder: Path, data: Path, mode: str, *more: str) -> Path:
    folder.mkdir()
    return tiny_run(folder, f"data.augment={mode}", "data.threads=1", *more, data=data)


@pytest.mark.slow
def test_all_modes_train_on_the_same_samples_and_crops(tmp_path):
    data = pictures(tmp_path / "pictures")
    runs = {mode: training_lines(run(tmp_path / mode, data, mode)) for mode in ("cpu", "split", "device")}
    for mode in ("split", "device"):
        assert [line["samples"] for line in runs[mode]] == [line["samples"] for line in runs["cpu"]]
        for one, other in zip(runs[mode], runs["cpu"], strict=True):
            assert one["loss"] == pytest.approx(other["loss"], rel=0.05)


def test_auto_is_cpu_without_a_gpu_and_the_run_says_so_and_keeps_what_it_chose(tmp_path):
    folder = run(tmp_path / "auto", pictures(tmp_path / "pictures"), "auto")
    assert read(folder / "config.yaml").data.augment == "cpu"
    assert "data.augment: cpu, because" in (folder / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["split", "device"])
def test_a_run_whose_crops_the_device_makes_goes_on_as_if_nothing_had_happened(tmp_path, mode):
    data = pictures(tmp_path / "pictures")
    whole = run(tmp_path / "whole", data, mode, "train.checkpoint_images=12", "train.keep=9")
    lines, steps = training_lines(whole), sorted((whole / "checkpoints").glob("step_*"))
    assert len(steps) > 1
    (whole / "checkpoints" / "last").write_text(steps[0].name)  # as if it had been cut off after this one
    resume(whole)
    assert training_lines(whole) == lines


def test_of_modes_about_as_fast_the_one_that_leaves_least_to_the_device_is_chosen():
    assert choose({"cpu": 100.0, "split": 105.0, "device": 109.0}) == "cpu"
    assert choose({"cpu": 50.0, "split": 100.0, "device": 105.0}) == "split"
    assert choose({"cpu": 50.0, "split": 100.0, "device": 300.0}) == "device"
