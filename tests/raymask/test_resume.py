"""A killed run goes on as if nothing had happened."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from raymask.pace import TIMES

DEADLINE = 240  # seconds a process may take here

# A prototype layer of some megabytes, so that a checkpoint takes long enough to be killed in.
SETTINGS = (
    "debug=true",
    "train.steps=24",
    "train.log_steps=5",
    "train.checkpoint_images=16",
    "evaluate.every_images=24",
    "method.head.out_dim=30000",
    "method.head.bottleneck_dim=64",
    "data.threads=2",
)


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    """raymask in a process of its own, in `folder`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "raymask", *arguments]
    with (folder / "output.txt").open("a") as output:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)


def finish(process: subprocess.Popen, folder: Path) -> None:
    assert process.wait(DEADLINE) == 0, (folder / "output.txt").read_text()


def kill_when(process: subprocess.Popen, due: Callable[[], object]) -> None:
    """SIGKILL as soon as `due()` holds."""
    until = time.monotonic() + DEADLINE
    while not due():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < until
        time.sleep(0.0005)
    process.kill()
    assert process.wait(DEADLINE) == -signal.SIGKILL


def lines(run: Path) -> list[dict]:
    """metrics.jsonl without the values that are times."""
    text = (run / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in text]


def last_step(run: Path) -> int:
    found = [line["step"] for line in lines(run)] if (run / "metrics.jsonl").exists() else []
    return max(found, default=-1)


def kill_inside_a_checkpoint(folder: Path, run: Path) -> None:
    """Resumes and kills, until a kill leaves a half-written checkpoint behind."""
    for _ in range(4):
        kill_when(start(folder, "resume", str(run)), lambda: list(run.glob("checkpoints/.writing_*")))
        if list(run.glob("checkpoints/.writing_*")):
            return
    raise AssertionError("each checkpoint was complete before the kill came")


@pytest.mark.slow
def test_a_run_killed_at_three_moments_one_inside_a_checkpoint_equals_an_unbroken_one(
    photos: Path, tmp_path: Path
):
    train = ("train", "dino-random-mask", *SETTINGS, f"data={photos}")
    finish(start(tmp_path, *train, "run.name=whole"), tmp_path)
    run, draw = tmp_path / "runs" / "broken", random.Random(os.urandom(8))
    first, second = draw.choice((0, 5)), draw.choice((10, 15))

    kill_when(start(tmp_path, *train, "run.name=broken"), lambda: last_step(run) >= first)
    kill_inside_a_checkpoint(tmp_path, run)
    kill_when(start(tmp_path, "resume", str(run)), lambda: last_step(run) >= second)
    finish(start(tmp_path, "resume", str(run)), tmp_path)

    assert lines(run) == lines(tmp_path / "runs" / "whole"), f"killed at {first} and {second}"
    assert not list(run.glob("checkpoints/.*")), "leftovers of the kills"


@pytest.mark.slow
def test_two_processes_see_the_samples_and_masks_of_one_and_learn_the_same_weights(
    photos: Path, tmp_path: Path
):
    from safetensors.torch import load_file

    settings = (
        "debug=true",
        "train.steps=5",
        "train.global_batch=5",
        "evaluate.every_images=null",
        f"data={photos}",
    )
    finish(start(tmp_path, "train", "dino-random-mask", *settings, "run.name=one"), tmp_path)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "raymask",
    ]
    with (tmp_path / "output.txt").open("a") as output:
        done = subprocess.run(
            [*command, "train", "dino-random-mask", *settings, "run.name=two"],
            cwd=tmp_path,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=output,
            stderr=output,
            timeout=DEADLINE,
        )
    assert done.returncode == 0, (tmp_path / "output.txt").read_text()
    one, two = (lines(tmp_path / "runs" / name) for name in ("one", "two"))
    for name in ("samples", "masks", "step", "mask_ratio", "lr"):
        assert [line.get(name) for line in one] == [line.get(name) for line in two], name
    weights = [
        load_file(tmp_path / "runs" / name / "checkpoints/step_00000005/model.safetensors")
        for name in ("one", "two")
    ]
    for name, tensor in weights[0].items():
        assert (tensor - weights[1][name]).abs().max() < 1e-6, name
