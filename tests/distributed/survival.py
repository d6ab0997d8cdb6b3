"""Runs on a cluster whose parts are killed, and what has to hold once they ended all the same."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from raymask import state
from tests.benchmarks._processes import tree
from tests.distributed.nodes import Node, Nodes
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
    """A run in the folder `root`, and the process that a user started for it."""

    folder: Path
    config: Path
    environment: dict[str, str]
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
                [sys.executable, *arguments],
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
        return max((line["step"] for line in _lines(path)), default=0) if path.exists() else 0

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


@dataclass(frozen=True)
class Survived:
    """A fault that a run outlived.

    at: the step of the last line before it
    start: the step at which the run went on
    seconds: from the fault until it went on
    """

    fault: str
    at: int
    start: int
    seconds: float

    @property
    def repeated(self) -> int:
        """Steps done twice, to the line."""
        return max(0, self.at - self.start)


def outlive(run: Run, fault: str, strike: Callable[[], object]) -> Survived:
    """Strikes, and waits until the run has gone on and is past where it was."""
    before, begun, seen = len(run.begins()), time.monotonic(), [run.step()]
    strike()

    def went_on() -> bool:
        step = run.step()
        if len(run.begins()) > before:
            return True
        seen.append(step)  # before lines that will be done again were taken back
        return False

    run.until(went_on, otherwise=f"it went on after: {fault}")
    survived = Survived(fault, max(seen), run.begins()[before], time.monotonic() - begun)
    run.until_step(survived.at + LOG)
    return survived


def kill_worker(nodes: Nodes) -> None:
    """SIGKILL for one of the processes that train."""
    os.kill(workers(nodes)[-1], signal.SIGKILL)


def kill_controller(nodes: Nodes) -> None:
    """SIGKILL for the process that watches the workers, on the driver's node."""
    (controller,) = _named("ray::TrainController", nodes)
    os.kill(controller, signal.SIGKILL)


def replace_node(nodes: Nodes) -> None:
    """Cuts the power of a node, of which the head hears nothing, and brings another."""
    leaving = nodes.living()[0]
    leaving.kill()
    nodes.begin()


def kill_inside_a_checkpoint(run: Run, nodes: Nodes) -> None:
    """Cuts the power of the node whose worker is writing a checkpoint, and brings another."""
    found = {pid: node for node in nodes.living() for pid in workers(nodes, node)}
    for _ in range(20):
        run.until(lambda: _half_written(run), otherwise="a checkpoint")
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        if _half_written(run):
            break
        for pid in found:  # it was complete before all stood still
            os.kill(pid, signal.SIGCONT)
    else:
        raise AssertionError("each checkpoint was complete before the kill came")
    writer = next(node for pid, node in found.items() if _has_open(pid, run.folder / ".lock"))
    writer.kill()
    for pid, node in found.items():
        if node is not writer:
            os.kill(pid, signal.SIGCONT)
    assert _half_written(run)
    nodes.begin()


def drain_node(run: Run, nodes: Nodes) -> None:
    """Announces that a node will be taken away, waits for the checkpoint that is written for it, takes it."""
    leaving, before = nodes.living()[0], set(checkpoints(run))
    nodes.drain(leaving, seconds=600)
    nodes.begin()
    run.until(
        lambda: [step for step in checkpoints(run) if step % CHECKPOINT and step not in before],
        otherwise="a checkpoint just in time",
    )
    leaving.kill()


def workers(nodes: Nodes, node: Node | None = None) -> list[int]:
    """The processes that train, on one node or on all."""
    return _named("ray::RayTrainWorker", nodes, node)


def checkpoints(run: Run) -> list[int]:
    """The steps of the complete checkpoints."""
    return sorted(int(path.name.removeprefix("step_")) for path in run.folder.glob("checkpoints/step_*"))


def assert_equal(run: Run, whole: Run, *, within: float) -> None:
    """Every line's hashes are those of an unbroken run, and the weights at the end."""
    mine, others = (_lines(each.folder / "metrics.jsonl") for each in (run, whole))
    for name in ("step", "samples", "masks"):
        assert [line.get(name) for line in mine] == [line.get(name) for line in others], name
    weights = [state.part(_last(each), "model") for each in (run, whole)]
    assert weights[0].keys() == weights[1].keys()
    for name, tensor in weights[1].items():
        assert (weights[0][name].float() - tensor.float()).abs().max() <= within, name


def assert_nothing_torn(run: Run) -> None:
    """Each checkpoint opens whole, and nothing half-written is left."""
    rests = [path.name for path in run.folder.glob("checkpoints/.*")]
    assert not rests, rests
    found = sorted(run.folder.glob("checkpoints/step_*"))
    assert found and _last(run) == found[-1]
    for path in found:
        assert state.describe(path)["step"] == int(path.name.removeprefix("step_"))
        assert all(bool(torch.isfinite(tensor).all()) for tensor in state.part(path, "model").values())


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


def _last(run: Run) -> Path:
    folder = run.folder / "checkpoints"
    return folder / (folder / "last").read_text().strip()


def _lines(path: Path) -> list[dict]:
    """The whole lines of a file that may be being written."""
    whole, _, _ = path.read_text().rpartition("\n")
    return [json.loads(line) for line in whole.splitlines()]


def _half_written(run: Run) -> bool:
    return bool(list(run.folder.glob("checkpoints/.writing_*")))


def _named(title: str, nodes: Nodes, node: Node | None = None) -> list[int]:
    roots = [node.process.pid] if node else [nodes.head.group, *(each.process.pid for each in nodes.living())]
    return [pid for root in roots for pid in tree(root) if _title(pid).startswith(title)]


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def _has_open(pid: int, path: Path) -> bool:
    with suppress(OSError):
        return any(os.path.realpath(link) == str(path) for link in Path(f"/proc/{pid}/fd").iterdir())
    return False
