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


@pytest.mark.parametrize("asks", ["raymask stop", "SIGTERM"])
def test_a_run_that_starts_its_workers_says_so_and_is_stopped_with_nothing_left(tmp_path: Path, asks: str):
    environment = {**os.environ, "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    run = Run(tmp_path / "runs" / "early", written_recipe(tmp_path), environment)
    with ended(run):
        run.train("workers=1", "train.steps=1000")
        run.until(lambda: list(run.folder.parent.glob(".seen-*")), otherwise="a sign of the run")
        said = ask(run, "status")
        assert said.returncode == 0 and "      starting\n" in said.stdout, said.stdout + said.stderr
        if asks == "SIGTERM":
            run.until(lambda: "starting 1 worker" in run.output, otherwise="Ray")
            run.process.send_signal(signal.SIGTERM)
        else:
            said = ask(run, "stop")
            assert said.returncode == 0 and "was stopped before it began, and left nothing" in said.stderr
        assert run.end() == 143, run.output
    assert "stopped; the run had not begun, and left nothing" in run.output.splitlines()[-1]
    assert [path.name for path in run.folder.parent.iterdir()] == ["early.output"]
