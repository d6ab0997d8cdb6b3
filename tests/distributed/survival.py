"""What is killed under a run on a cluster, and what has to hold once the run ended all the same."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from raymask import state
from tests.benchmarks._processes import tree
from tests.distributed.driven import CHECKPOINT, LOG, Run, lines
from tests.distributed.nodes import Node, Nodes

LARGER = "method.head={out_dim: 8192, hidden_dim: 32, bottleneck_dim: 32}"  # takes a while to be written


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


def kill_driver(run: Run) -> None:
    """SIGKILL for the process that the user started; another goes on."""
    run.process.kill()
    run.end()
    run.resume()


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
    mine, others = (lines(each.folder / "metrics.jsonl") for each in (run, whole))
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


def _last(run: Run) -> Path:
    folder = run.folder / "checkpoints"
    return folder / (folder / "last").read_text().strip()


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
