"""The same numbers everywhere: a plain process, Ray Train, a Tune trial and torchrun run one loop."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from raymask import state
from raymask.config import change, load, read
from raymask.distributed.launch import resume_on_ray, train_on_ray
from raymask.distributed.tune import tune
from raymask.pace import TIMES
from raymask.train import resume, train
from tests.raymask.tiny_run import RECIPE, pictures

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.usefixtures("ray_cluster")]

# Of these the masks do not follow attention, whose rounding depends on how many images one product holds.
METHODS = {
    "dino-random-mask": "",
    "mae": "method: {decoder: {dim: 16, depth: 1, heads: 2}}\n",
    "ibot-random": "",
}
SPACE = '''"""One trial, as it is."""

METRIC = "eval/knn5_top1"


def suggest(trial):
    return {"optim.base_lr": trial.suggest_categorical("optim.base_lr", [0.0001])}
'''
DEADLINE = 300  # seconds for one process


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pictures(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """As workers of one core have: sums of other numbers of threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def recipe(folder: Path, method: str) -> Path:
    """A tiny config of the method."""
    text = RECIPE.replace("extends: dino-random-mask", f"extends: {method}")
    own = [line for line in text.splitlines() if not line.startswith("method:") or not METHODS[method]]
    path, text = folder / f"{method}.yaml", "\n".join(own) + "\n" + METHODS[method]
    views = "local_crops: {count: 2, size: 8}"
    path.write_text(text if not METHODS[method] else text.replace(views, "local_crops: {count: 0}"))
    return path


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without what measures speed."""
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMES} for line in found]


def weights(run: Path) -> dict[str, torch.Tensor]:
    folder = run / "checkpoints"
    return state.part(folder / (folder / "last").read_text().strip(), "model")


def assert_same_to_the_bit(run: Path, reference: Path) -> None:
    assert lines(run) == lines(reference)
    for name, tensor in weights(reference).items():
        assert torch.equal(weights(run)[name], tensor), name


def assert_same_but_for_rounding(run: Path, reference: Path) -> None:
    """A step moves a weight by up to the learning rate (5e-6 here) whatever its gradient, and that of keys'
    biases is nothing but rounding: so much may differ, and no more."""
    for name in ("step", "samples", "masks", "lr"):
        assert [line.get(name) for line in lines(run)] == [line.get(name) for line in lines(reference)], name
    for name, tensor in weights(reference).items():
        assert (weights(run)[name] - tensor).abs().max() < 1e-6, name


def torchrun(config: Path, *changes: str) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["-m", "raymask", "train", str(config), *changes]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_every_host_sees_the_same_samples_and_masks_and_learns_the_same_weights(
    method: str, photos: Path, tmp_path: Path
):
    (tmp_path / "space.py").write_text(SPACE)
    found = tune(
        str(tmp_path / "space.py"),
        [
            f"preset={recipe(tmp_path, method)}",
            "budget=96",
            "trials=1",
            "checks=2",
            f"data={photos}",
            f"root={tmp_path}",
            "name=search",
        ],
    )
    (trial,) = (found / "trials").iterdir()
    config = change(read(trial / "config.yaml"), [f"run.root={tmp_path}", "run.name=local"])
    local = train(config)
    assert_same_to_the_bit(trial, local)
    assert_same_to_the_bit(train_on_ray(change(config, ["run.name=one", "workers=1"])), local)
    two = train_on_ray(change(config, ["run.name=two", "workers=2"]))
    assert_same_but_for_rounding(two, local)
    torchrun(local / "config.yaml", "run.name=torchrun")
    assert_same_to_the_bit(tmp_path / "torchrun", two)


@pytest.mark.timeout(900)
def test_a_run_goes_on_as_one_process_or_two_with_weights_whole_or_shared(photos: Path, tmp_path: Path):
    tiny = recipe(tmp_path, "dino-random-mask")
    common = [f"data={photos}", f"run.root={tmp_path}", "train.checkpoint_images=24", "train.keep=9"]
    whole = train(load(str(tiny), [*common, "run.name=whole"]))
    shared = train_on_ray(load(str(tiny), [*common, "run.name=shared", "workers=2", "train.sharing=fsdp2"]))
    assert (shared / "checkpoints" / "step_00000002" / "shards").is_dir()
    assert not (shared / ".place").exists(), "what workers note of their place goes with them"
    assert_same_but_for_rounding(shared, whole)

    def back(run: Path) -> None:
        (run / "checkpoints" / "last").write_text("step_00000002\n")

    back(shared)
    resume(shared, ["workers=null"])
    assert_same_but_for_rounding(shared, whole)
    back(shared)
    resume_on_ray(shared, ["workers=2", "train.sharing=ddp"])
    assert_same_but_for_rounding(shared, whole)
    back(whole)
    resume_on_ray(whole, ["workers=2", "train.sharing=fsdp2"])
    assert_same_but_for_rounding(whole, shared)
