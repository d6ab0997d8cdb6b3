"""The SLURM script's own body, run on this machine with small stand-ins for srun, scontrol and hostname."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import write_photos
from tests.distributed.head import marked

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "cluster" / "slurm" / "raymask.sbatch"

# srun starts what follows its options, and hands signals on to it, as the real one does.
SRUN = """#!/usr/bin/env bash
while [[ "$1" == --* ]]; do shift; done
exec "$@"
"""
SCONTROL = """#!/usr/bin/env bash
if [ "$1" = show ]; then echo node-a; else echo "$@" >> "$REQUEUED"; fi
"""
HOSTNAME = """#!/usr/bin/env bash
echo 127.0.0.1
"""


@pytest.fixture
def node(tmp_path: Path) -> dict[str, str]:
    """The environment of a batch script on a cluster of one node, this machine."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, text in {"srun": SRUN, "scontrol": SCONTROL, "hostname": HOSTNAME}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(stat.S_IRWXU)
    (tmp_path / "home").mkdir()
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))},
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "RAYMASK_VENV": str(Path(sys.executable).parents[1]),
        "REQUEUED": str(tmp_path / "requeued"),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NAME": "night",
        "SLURM_JOB_NODELIST": "node-a",
        "SLURM_CPUS_PER_TASK": "2",
        "SLURM_GPUS_ON_NODE": "0",
        "PYTHONPATH": str(ROOT),
    }


class Batch:
    """The script as SLURM would run it, with its output in a file."""

    def __init__(self, folder: Path, environment: dict[str, str], *arguments: str) -> None:
        self.log = folder / "batch.log"
        self.process = subprocess.Popen(
            ["bash", str(SCRIPT), *arguments],
            cwd=folder,
            env=environment,
            stdout=self.log.open("a"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def until(self, said: Path, *, seconds: float = 250) -> None:
        """Waits until a file has a whole line."""
        until = time.monotonic() + seconds
        while not (said.exists() and "\n" in said.read_text()):
            assert self.process.poll() is None and time.monotonic() < until, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)


@pytest.fixture
def batches(node: dict[str, str], tmp_path: Path) -> Iterator[list[Batch]]:
    """Started scripts, whose processes are all gone afterwards."""
    started: list[Batch] = []
    yield started
    for batch in started:
        batch.end()
    for left in marked(f"REQUEUED={tmp_path}"):
        os.kill(left, signal.SIGKILL)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_job_told_of_its_end_writes_a_checkpoint_is_requeued_and_goes_on(
    node: dict[str, str], batches: list[Batch], tmp_path: Path
):
    photos = write_photos(tmp_path / "photos", per_class=12)
    run = tmp_path / "runs" / f"night-{node['SLURM_JOB_ID']}"
    arguments = ["dino-laptop", f"data={photos}", f"run.root={tmp_path / 'runs'}", "debug=true"]
    arguments += ["train.steps=60", "train.log_steps=5", "train.checkpoint_images=100000"]
    arguments += ["evaluate.every_images=100000"]
    first = Batch(tmp_path, node, *arguments)
    batches.append(first)
    first.until(run / "metrics.jsonl")
    first.process.send_signal(signal.SIGUSR1)
    assert first.process.wait(150) not in (0, 1, 2), first.log.read_text()[-3000:]
    assert (tmp_path / "requeued").read_text() == f"requeue {node['SLURM_JOB_ID']}\n"
    assert (run / "checkpoints" / "last").exists()
    assert "token" not in first.log.read_text().lower()
    _nothing_is_left(tmp_path)

    second = Batch(tmp_path, node, *arguments)
    batches.append(second)
    assert second.process.wait(450) == 0, second.log.read_text()[-3000:]
    steps = [line["step"] for line in lines(run) if "loss" in line]
    assert steps == list(range(5, 61, 5))
    _nothing_is_left(tmp_path)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def _nothing_is_left(tmp_path: Path) -> None:
    """No process of the job lives, and its folder of sockets and logs is gone."""
    until = time.monotonic() + 20
    while marked(f"REQUEUED={tmp_path}") and time.monotonic() < until:
        time.sleep(0.5)
    assert marked(f"REQUEUED={tmp_path}") == []
    assert not Path(f"/tmp/rm-{os.getpid()}").exists()
