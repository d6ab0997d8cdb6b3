"""A run on workers is known from its command on: it can be asked after and stopped before it has begun."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.distributed.driven import Run, ended, written_recipe

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(600)]


def ask(run: Run, verb: str) -> subprocess.CompletedProcess[str]:
    """What `raymask VERB RUN` says."""
    command = [sys.executable, "-m", "raymask", verb, str(run.folder)]
    return subprocess.run(command, env=run.environment, capture_output=True, text=True, timeout=300)


def begun(folder: Path, *changes: str) -> Run:
    """A run on workers whose driver has only just left its mark."""
    environment = {**os.environ, "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    run = Run(folder / "runs" / "early", written_recipe(folder), environment)
    run.train("train.steps=1000", *changes)
    run.until(lambda: list(run.folder.parent.glob(".seen-*")), otherwise="a sign of the run")
    return run


def is_stopped(run: Run) -> None:
    """Nothing was left of it but what the user saw."""
    said = ask(run, "stop")
    assert said.returncode == 0 and "was stopped before it began, and left nothing" in said.stderr
    ends_with_nothing_left(run)


def ends_with_nothing_left(run: Run) -> None:
    assert run.end() == 143, run.output
    assert "stopped; the run had not begun, and left nothing" in run.output.splitlines()[-1]
    assert [path.name for path in run.folder.parent.iterdir()] == ["early.output"]


def test_a_run_that_starts_says_so_and_is_stopped_with_nothing_left(tmp_path: Path):
    with ended(begun(tmp_path, "workers=1")) as run:
        said = ask(run, "status")
        assert said.returncode == 0 and "      starting\n" in said.stdout, said.stdout + said.stderr
        is_stopped(run)


def test_a_run_that_waits_for_nodes_says_so_and_is_stopped_with_nothing_left(tmp_path: Path):
    with ended(begun(tmp_path, "workers=1", "cluster.cpus=999", "cluster.wait=900")) as run:
        run.until(lambda: "waiting for 1 worker with 999 CPU" in run.output, otherwise="that it waits")
        said = ask(run, "status")
        assert "starting\n      waiting for 1 worker with 999 CPU, for " in said.stdout, said.stdout
        is_stopped(run)


def test_sigterm_ends_a_run_that_starts_its_workers_with_nothing_left(tmp_path: Path):
    with ended(begun(tmp_path, "workers=1")) as run:
        run.until(lambda: "starting 1 worker" in run.output, otherwise="Ray")
        run.process.send_signal(signal.SIGTERM)
        ends_with_nothing_left(run)
