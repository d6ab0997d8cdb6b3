"""A run from its start to its end, in this process, on real images and networks of toy size."""

import json
import math
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch

import raymask.fit
from pipelines.lock import lock
from raymask import presets
from raymask.config import load, read
from raymask.fit import Diverged
from raymask.pace import TIMES
from raymask.run import LOCK
from raymask.signals import Stopped
from raymask.train import resume, train

REQUIRED = (
    *(
        "step",
        "images",
        "epoch",
        "progress",
        "loss",
        "lr",
        "wd",
        "momentum",
        "mask_ratio",
        "guidance",
        "grad_norm",
    ),
    *(*TIMES, "teacher_entropy", "samples", "masks"),
)


def settings(photos: Path, root: Path, name: str, *more: str) -> list[str]:
    return ["debug=true", f"data={photos}", f"run.root={root}", f"run.name={name}", *more]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_times(found: list[dict]) -> list[dict]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished debug run."""
    return train(load("dino-random-mask", settings(photos, tmp_path_factory.mktemp("runs"), "whole")))


def test_the_run_directory_holds_what_the_design_promises(run: Path):
    names = {path.name for path in run.iterdir()}
    assert names >= {"config.yaml", "env.json", "metrics.jsonl", "train.log", "checkpoints", "eval"}
    assert (run / "checkpoints" / "last").read_text().strip() == "step_00000006"
    assert json.loads((run / "env.json").read_text())["versions"]["torch"] == torch.__version__
    assert read(run / "config.yaml").run.name == "whole"


def test_a_training_line_has_every_field_and_each_is_a_number(run: Path):
    training = [line for line in lines(run) if "loss" in line]
    assert [line["step"] for line in training] == [1, 2, 3, 4, 5, 6]
    for line in training:
        assert set(REQUIRED) <= set(line)
        assert all(re.fullmatch("[0-9a-f]{16}", line[name]) for name in ("samples", "masks"))
        numbers = [line[name] for name in REQUIRED if name not in ("samples", "masks")]
        assert all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
        assert line["images"] == 4 * line["step"] and 0 <= line["data_wait"] <= 1
    assert len({line["samples"] for line in training}) == len({line["masks"] for line in training}) == 6


def test_the_backbone_is_evaluated_before_between_and_at_the_end(run: Path):
    found = [line for line in lines(run) if "eval/knn5_top1" in line]
    assert [line["step"] for line in found] == [0, 3, 6]
    assert {path.name for path in (run / "eval").iterdir()} >= {f"step_{n:08d}.json" for n in (0, 3, 6)}


def test_the_same_config_gives_the_same_run_bit_for_bit(run: Path, photos: Path, tmp_path: Path):
    changes = [f"run.root={tmp_path}", "data.threads=2"]
    again = train(load(str(run / "config.yaml"), changes))
    assert without_times(lines(again)) == without_times(lines(run))
    weights = [path / "checkpoints" / "step_00000006" / "model.safetensors" for path in (run, again)]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_run_that_is_asked_to_stop_writes_a_checkpoint_and_goes_on_later_as_if_nothing_happened(
    run: Path, photos: Path, tmp_path: Path
):
    config = load("dino-random-mask", settings(photos, tmp_path, "whole", "train.log_steps=4"))
    unbroken = train(config.model_copy(update={"run": config.run.model_copy(update={"name": "unbroken"})}))
    folder = config.run.folder()
    threading.Thread(target=interrupt_after_the_first_step, args=(folder,)).start()
    with pytest.raises(Stopped, match=f"raymask resume {folder}") as stopped:
        train(config)
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert 0 < int((folder / "checkpoints" / "last").read_text().strip()[5:]) < 6
    resume(folder)
    assert without_times(lines(folder)) == without_times(lines(unbroken))


def interrupt_after_the_first_step(folder: Path) -> None:
    """SIGTERM to this process once the run has evaluated and begun its first step."""
    until = threading.Event()
    while not (folder / "metrics.jsonl").exists():
        until.wait(0.001)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_run_that_another_process_trains_is_left_alone(run: Path):
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != LOCK}
    with (run / LOCK).open("ab") as other:
        lock(other, busy="")
        with pytest.raises(ValueError, match=f"another process trains in {run}: wait for it to end"):
            resume(run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.name != LOCK} == before


def test_a_finished_run_has_nothing_left_to_resume(run: Path):
    before = lines(run)
    assert resume(run) == run
    assert lines(run) == before


def test_a_run_directory_is_never_overwritten(run: Path, photos: Path):
    before = sorted(run.rglob("*"))
    with pytest.raises(
        ValueError, match=rf"exists and is never overwritten.*raymask resume {run}.*run\.name=NAME"
    ):
        train(load("dino-random-mask", settings(photos, run.parent, run.name)))
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize("key", ["run.seed=1", "mask.ratio=0.5", "train.global_batch=6", "optim.base_lr=1"])
def test_a_run_does_not_go_on_under_another_config(run: Path, key: str):
    with pytest.raises(ValueError, match=rf"another config: {key.split('=')[0]}"):
        resume(run, [key])


def test_a_run_does_not_go_on_on_other_data(run: Path, tmp_path: Path):
    from tests.conftest import write_photos

    other = write_photos(tmp_path / "other", per_class=12, seed=7)
    with pytest.raises(ValueError, match="was trained on other data"):
        resume(run, [f"data.train={other}"])


def test_pace_and_reports_may_change_on_the_way(run: Path):
    resume(run, ["data.threads=1", "train.keep=1", "evaluate.knn=[3]"])


def test_a_folder_that_is_no_run_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"is no run directory: it holds no config\.yaml"):
        resume(tmp_path)


REFUSED = {
    "train.global_batch=200": "train.global_batch=200 is larger than the data set of 24 images",
    "data.train=null": "data.train is not set",
    "data.train=/no/such/place": "the path does not exist",
    "backbone.name=resnet18": "is not one of timm's VisionTransformers",
    "backbone.name=vit_smal_patch16_224": "vit_small_patch16_224",
    "mask.ratio=0.01": "hides none of 16 patches: choose one of at least 0.0625",
}


@pytest.mark.parametrize(("change", "sentence"), REFUSED.items())
def test_what_does_not_fit_is_refused_before_anything_is_written(
    photos: Path, tmp_path: Path, change: str, sentence: str
):
    with pytest.raises(ValueError, match=sentence):
        train(load("dino-random-mask", settings(photos, tmp_path, "x", change)))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_is_refused_before_anything_is_written(tmp_path: Path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="image"):
        train(load("dino-random-mask", settings(tmp_path / "none", tmp_path / "runs", "x")))
    assert not (tmp_path / "runs").exists()


def test_a_loss_that_is_not_finite_ends_the_run_at_its_last_good_checkpoint(
    photos: Path, tmp_path: Path, monkeypatch
):
    def breaks(parallel, batch, *rest, **named):
        values = real(parallel, batch, *rest, **named)
        return {**values, "loss": values["loss"] * (float("nan") if batch.step >= 4 else 1)}

    real = raymask.fit.train_step
    monkeypatch.setattr(raymask.fit, "train_step", breaks)
    with pytest.raises(
        Diverged, match=r"not finite any more since step 4; the last good checkpoint is .*step_00000003"
    ):
        train(load("dino-random-mask", settings(photos, tmp_path, "x", "train.log_steps=2")))
    run = tmp_path / "x"
    assert [path.name for path in (run / "checkpoints").glob("*step*")] == ["step_00000003"]
    assert max(line["step"] for line in lines(run)) == 4


def test_data_without_a_held_out_split_trains_and_says_that_there_are_no_accuracies(
    photos: Path, tmp_path: Path
):
    run = train(load("dino", settings(photos / "train", tmp_path, "x", "train.steps=2")))
    assert "eval/effective_rank" in lines(run)[0] and not any("eval/knn5_top1" in line for line in lines(run))
    assert "no accuracies" in (run / "train.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("name", presets.names())
def test_every_preset_trains_stops_and_goes_on(photos: Path, tmp_path: Path, name: str):
    whole = train(load(name, settings(photos, tmp_path, "whole", "train.steps=4")))
    config = load(name, settings(photos, tmp_path, "parts", "train.steps=4"))
    folder = config.run.folder()
    threading.Thread(target=interrupt_after_the_first_step, args=(folder,)).start()
    with pytest.raises(Stopped):
        train(config)
    resume(folder)
    assert without_times(lines(folder)) == without_times(lines(whole))


def test_a_collapse_is_said_once_and_early(photos: Path, tmp_path: Path):
    broken = ("optim.base_lr=100", "train.steps=12", "evaluate.every_images=12")
    run = train(load("dino", settings(photos, tmp_path, "x", *broken)))
    log = (run / "train.log").read_text()
    assert log.count("warning: ") == 1 and "ollapsed" in log
    assert log.index("warning: ") < log.index("step 12/12")


def test_an_unreadable_image_is_replaced_and_named(photos: Path, tmp_path: Path):
    from tests.conftest import write_photos

    source = write_photos(tmp_path / "photos", per_class=6)
    (source / "cat" / "000.png").write_bytes(b"no image")
    run = train(load("dino", settings(source, tmp_path, "x", "data.max_bad_fraction=0.2", "train.steps=4")))
    assert "cat/000" in (run / "bad_samples.jsonl").read_text()
    assert "bad_samples.jsonl names them" in (run / "train.log").read_text()
    with pytest.raises(ValueError, match=r"0 %|max_bad_fraction|unreadable|bad"):
        train(load("dino", settings(source, tmp_path, "y", "data.max_bad_fraction=0", "train.steps=4")))
