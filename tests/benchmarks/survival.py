"""What runs outlive on a cluster of three real nodes: the table of docs/reliability.md.

    python -m tests.benchmarks.survival [--times N] [--only NAME ...]

Everything is killed by its process id. The nodes are on this machine, each with an address and a temporary
folder of its own; the head has no cores, and the driver and the controller live there.
"""

import argparse
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from tests.benchmarks._machine import machine
from tests.distributed.driven import (
    CHECKPOINT,
    ENVIRONMENT,
    LOG,
    Run,
    ended,
    written_recipe,
)
from tests.distributed.nodes import Nodes, cluster
from tests.distributed.survival import (
    LARGER,
    Survived,
    assert_equal,
    assert_nothing_torn,
    drain_node,
    kill_controller,
    kill_driver,
    kill_inside_a_checkpoint,
    kill_worker,
    outlive,
    replace_node,
    workers,
)


def terminate(run: Run, nodes: Nodes, *changes: str) -> None:
    """SIGTERM for the driver, which ends in good order; another goes on, with changes."""
    run.process.terminate()
    assert run.end() == 128 + signal.SIGTERM, run.output
    run.resume(*changes)


def ask(run: Run, nodes: Nodes) -> None:
    """The file .stop in the run directory; another driver goes on."""
    (run.folder / ".stop").touch()
    assert run.end() == 128 + signal.SIGTERM, run.output
    run.resume()


def shrink(run: Run, nodes: Nodes) -> None:
    """A node dies and nothing replaces it."""
    nodes.living()[0].kill()


def grow(run: Run, nodes: Nodes) -> None:
    """A node joins."""
    assert len(workers(nodes)) == 1
    nodes.add()


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run; `said` of it in the table."""

    said: str
    strike: Callable[[Run, Nodes], object]


@dataclass(frozen=True)
class Story:
    """Faults of one run, its settings, and how far its weights may be from an unbroken run's by rounding."""

    settings: tuple[str, ...]
    faults: dict[str, Fault]
    within: float


STORIES = {
    "fixed": Story(
        ("train.steps=420", "workers=2", LARGER),
        {
            "worker": Fault("a worker's process killed", lambda run, nodes: kill_worker(nodes)),
            "controller": Fault("the controller's process killed", lambda run, nodes: kill_controller(nodes)),
            "node": Fault("a node killed, another joins", lambda run, nodes: replace_node(nodes)),
            "checkpoint": Fault(
                "the node that writes a checkpoint killed inside of it, another joins",
                kill_inside_a_checkpoint,
            ),
            "drain": Fault("a node announced to be preempted, then killed, another joins", drain_node),
            "driver": Fault("the driver killed, `raymask resume`", lambda run, nodes: kill_driver(run)),
            "sigterm": Fault("SIGTERM to the driver, `raymask resume`", terminate),
            "stop": Fault("a file `.stop` in the run directory, `raymask resume`", ask),
        },
        within=0,
    ),
    "elastic": Story(
        ("train.steps=1200", "workers=1:2", "cluster.resize=5"),
        {
            "shrink": Fault("`workers=1:2`: one of two nodes killed", shrink),
            "grow": Fault("`workers=1:2`: a second node joins", grow),
        },
        within=1e-4,
    ),
    "shared": Story(
        ("train.steps=240", "workers=2", "train.sharing=fsdp2"),
        {
            "fsdp2": Fault(
                "`train.sharing=fsdp2`: a worker's process killed", lambda run, nodes: kill_worker(nodes)
            ),
            "one": Fault(
                "the same, stopped and resumed with `workers=1`",
                lambda run, nodes: terminate(run, nodes, "workers=1"),
            ),
            "ddp": Fault(
                "the same, stopped and resumed with `workers=2 train.sharing=ddp`",
                lambda run, nodes: terminate(run, nodes, "workers=2", "train.sharing=ddp"),
            ),
        },
        within=1e-4,
    ),
}


def tell(
    story: Story, chosen: set[str], nodes: Nodes, recipe: Path, folder: Path
) -> list[tuple[str, Survived]]:
    """One run and its unbroken twin; what it outlived, by the faults' names."""
    run, whole = (
        Run(folder / name, recipe, nodes.environment(**ENVIRONMENT)) for name in ("struck", "whole")
    )
    found = []
    with ended(run), ended(whole):
        _begin_twin(whole, story)
        assert whole.end() == 0, whole.output
        run.train(*story.settings, f"cluster.address={nodes.head.address}")
        run.until_step(CHECKPOINT + LOG)
        for name, fault in story.faults.items():
            if name in chosen:
                found.append((name, outlive(run, name, partial(fault.strike, run, nodes))))
                print(f"{name}: {found[-1][1]}", flush=True)
        assert run.end() == 0, run.output
    assert_nothing_torn(run)
    assert_equal(run, whole, within=story.within)
    return found


def _begin_twin(whole: Run, story: Story) -> None:
    settings = [
        each for each in story.settings if not each.startswith(("workers", "cluster", "train.sharing"))
    ]
    if story.within:
        whole.train(*settings)
    else:
        whole.torchrun(*settings)


def row(fault: Fault, found: list[Survived], *, within: float) -> str:
    """A line of the table."""
    seconds = [each.seconds for each in found]
    took = f"{median(seconds):.0f}" + (
        f" ({min(seconds):.0f} to {max(seconds):.0f})" if len(found) > 1 else ""
    )
    repeated = ", ".join(str(each.repeated) for each in found)
    lost = (
        "nothing: equal to the bit" if not within else f"nothing: equal but for rounding (below {within:g})"
    )
    return f"| {fault.said} | {len(found)} | {took} | {repeated} | {lost} |"


def main() -> None:
    """Prints the table."""
    names = [name for story in STORIES.values() for name in story.faults]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    asked = parser.parse_args()
    chosen, found = set(asked.only), {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="survival-") as temporary:
        folder = Path(temporary)
        recipe = written_recipe(folder)
        for time in range(asked.times):
            for title, story in STORIES.items():
                if chosen & set(story.faults):
                    _tell_on_new_nodes(story, chosen, recipe, folder / f"{title}{time}", found)
    print(f"\n{machine()}\n")
    print("| what happened | times | seconds until training went on | steps repeated | lost |")
    print("| --- | --- | --- | --- | --- |")
    for story in STORIES.values():
        for name, fault in story.faults.items():
            if found[name]:
                print(row(fault, found[name], within=story.within))


def _tell_on_new_nodes(story: Story, chosen: set[str], recipe: Path, folder: Path, found: dict) -> None:
    folder.mkdir()
    with cluster(folder, nodes=2) as nodes:
        for name, survived in tell(story, chosen, nodes, recipe, folder / "runs"):
            found[name].append(survived)


if __name__ == "__main__":
    main()
