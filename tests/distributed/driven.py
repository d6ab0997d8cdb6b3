"""Runs of toy size, each driven by a process as a user starts it, and watched through what they write."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.raymask.tiny_run import pictures

LOG, CHECKPOINT = 5, 21  # steps between two lines, and two checkpoints; together only at every 105th step
DEADLINE = 900  # seconds that anything may take on a machine that does other things as well
RECIPE = f"""
extends: dino-random-mask
data:
  threads: 1
  crops:
    global_crops: {{size: 16}}
    local_crops: {{count: 2, size: 8}}
backbone: {{image_size: 16, patch_size: 4, dim: 32, depth: 2, heads: 2}}
method: {{head: {{out_dim: 64, hidden_dim: 32, bottleneck_dim: 16}}}}
train: {{global_batch: 12, log_steps: {LOG}, checkpoint_images: {12 * CHECKPOINT}, precision: float32}}
evaluate: {{resize: 16, knn: [5], every_images: null}}
"""
# Death is looked for more often than by default, and nodes that leave as well.
ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
}


def written_recipe(folder: Path) -> Path:
    """The recipe in a file, with pictures beside it."""
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.replace("data:", f"data:\n  train: {pictures(folder / 'photos')}"))
    return path


@dataclass
class Run:
    """A run in the folder `root`, and the process that a user started for it.

    apart: how a process begins that has another disk there
    """

    folder: Path
    config: Path
    environment: dict[str, str]
    apart: tuple[str, ...] = ()
    process: subprocess.Popen = field(init=False)

    def train(self, *changes: str) -> None:
        """A new run."""
        self._begin("-m", "raymask", "train", *self._described(), *changes)

    def torchrun(self, *changes: str) -> None:
        """The same as a new run of two processes without Ray."""
        command = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "raymask")
        self._begin(*command, "train", *self._described(), *changes)

    def resume(self, *changes: str) -> None:
        """The same run, gone on with."""
        self._begin("-m", "raymask", "resume", str(self.folder), *changes)

    def end(self) -> int:
        """Waits for the process, and gives its exit code."""
        return self.process.wait(DEADLINE)

    @property
    def output(self) -> str:
        """What the user saw."""
        return self._output.read_text() if self._output.exists() else ""

    def _begin(self, *arguments: str) -> None:
        self.folder.parent.mkdir(exist_ok=True)
        with self._output.open("a") as output:
            self.process = subprocess.Popen(
                [*self.apart, sys.executable, *arguments],
                cwd=self.folder.parent,
                env=self.environment,
                stdout=output,
                stderr=output,
            )

    def _described(self) -> tuple[str, ...]:
        return str(self.config), f"run.root={self.folder.parent}", f"run.name={self.folder.name}"

    @property
    def _output(self) -> Path:
        return self.folder.with_suffix(".output")

    def step(self) -> int:
        """The last step that a line tells of."""
        path = self.folder / "metrics.jsonl"
        return max((line["step"] for line in lines(path)), default=0) if path.exists() else 0

    def begins(self) -> list[int]:
        """The steps at which workers began, in order: 0, then where the run was gone on with."""
        log = self.folder / "train.log"
        text = log.read_text() if log.exists() else ""
        return [int(step or 0) for step in re.findall(r"continuing at step (\d+)|: \d+ steps on", text)]

    def until(self, holds: Callable[[], object], *, otherwise: str) -> None:
        """Waits, while the process lives, for something to hold."""
        until = time.monotonic() + DEADLINE
        while not holds():
            assert self.process.poll() is None, f"the run ended before {otherwise}: {self.output[-3000:]}"
            assert time.monotonic() < until, f"{otherwise} took too long: {self.output[-3000:]}"
            time.sleep(0.02)

    def until_step(self, step: int) -> None:
        self.until(lambda: self.step() >= step, otherwise=f"step {step}")


@contextmanager
def ended(run: Run) -> Iterator[Run]:
    """Whatever happens, the run's process is gone after it."""
    try:
        yield run
    finally:
        with suppress(AttributeError):
            if run.process.poll() is None:
                run.process.kill()
                run.process.wait(60)


def lines(path: Path) -> list[dict]:
    """The whole lines of a file that may be being written."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]
