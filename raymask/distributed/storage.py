"""Whether the nodes on which workers may live see the folder that runs are written to.

Who does not answer is left to its workers, which look for themselves when they begin (raymask/disks.py).
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from raymask.driver import marked

BUCKET = ", or run.mirror to a bucket such as s3://bucket/runs"  # what helps a run instead
_BEGIN = 60.0  # seconds that a node gets to begin to look, which starts a process there
_LOOK = 20.0  # seconds that its disk gets to answer
_LATE = 5.0  # seconds by which a disk of the network may lag behind another machine

Answer = Literal["seen", "unseen", "silent"]


def check_storage(
    root: Path,
    nodes: Sequence[dict[str, Any]],
    *,
    key: str,
    instead: str = "",
    say: Callable[[str], None],
    seconds: float = _BEGIN,
) -> None:
    """Raises ValueError, naming a node, where one does not see `root`; says which could not be asked.

    key: the setting that names the folder; instead: what else may be set
    """
    if are_here(nodes):
        return
    with marked(root) as marker:
        answers = _ask(str(marker), nodes, seconds)
    for address, answer, reason in answers:
        if answer is None:
            say(
                f"the cluster's node {address} could not say whether it sees {key}={root} ({reason}): "
                "workers there will look for themselves"
            )
    for wrong, what in _WRONG.items():
        found = [address for address, answer, _ in answers if answer == wrong]
        if found:
            raise ValueError(_refusal(f"{key}={root} {what}", found, f"set {key}", instead))


_WRONG = {"unseen": "is not seen by", "silent": f"does not answer for {_LOOK:.0f} s on"}


def _refusal(what: str, found: Sequence[str], remedy: str, instead: str) -> str:
    more = f" and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{what} the cluster's node {found[0]}{more}: checkpoints have to lie where every node can read "
        f"them; {remedy} to a folder that all share (NFS){instead}"
    )


def refuse_blind(marker: Path) -> None:
    """Raises ValueError in a worker that does not see the file that its driver left beside the runs.

    Workers compare themselves with each other, too; but one that is alone would begin the run anew. A disk
    that does not answer raises OSError: it may do so when the worker is started again.
    """
    until = time.monotonic() + _LATE
    while (answer := look(str(marker))) == "unseen" and time.monotonic() < until:
        time.sleep(0.5)
    if answer == "seen":
        return
    what = _refusal(
        f"run.root={marker.parent} {_WRONG[answer]}",
        [socket.gethostname()],
        "set run.root (for a search, root)",
        BUCKET,
    )
    raise (OSError if answer == "silent" else ValueError)(what)


def are_here(nodes: Sequence[dict[str, Any]]) -> bool:
    """Whether this process's node is the only one."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return all(node["NodeID"] == here for node in nodes)


def look(path: str, *, seconds: float = _LOOK, exists: Callable[[str], bool] = os.path.exists) -> Answer:
    """Runs on a node: whether a file is there; "silent" where the disk of a network hangs."""
    found: list[bool] = []

    def see() -> None:
        with suppress(OSError), os.scandir(Path(path).parent):
            pass  # opening a folder makes NFS ask for what is new in it
        found.append(exists(path))

    thread = threading.Thread(target=see, daemon=True)
    thread.start()
    thread.join(seconds)
    return ("seen" if found[0] else "unseen") if found else "silent"


def _ask(path: str, nodes: Sequence[dict[str, Any]], seconds: float) -> list[tuple[str, Answer | None, str]]:
    """Each node's address and answer; None, and why, for one that does not."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    remote: Any = ray.remote(look)
    asked = {
        node["NodeID"]: remote.options(
            num_cpus=0,
            max_retries=0,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(path)
        for node in nodes
    }
    begun, _ = ray.wait(list(asked.values()), num_returns=len(asked), timeout=seconds)
    return [
        (node["NodeManagerAddress"], *_answer(asked[node["NodeID"]], asked[node["NodeID"]] in begun, seconds))
        for node in nodes
    ]


def _answer(task: Any, ended: bool, seconds: float) -> tuple[Answer | None, str]:
    import ray
    from ray.exceptions import GetTimeoutError, NodeDiedError, TaskUnschedulableError, WorkerCrashedError

    if not ended:
        with suppress(Exception):  # its node may be gone meanwhile
            ray.cancel(task, force=True)
        return None, f"it did not begin to look within {seconds:.0f} s"
    try:
        return ray.get(task, timeout=1), ""
    except (NodeDiedError, TaskUnschedulableError, WorkerCrashedError, GetTimeoutError):
        return None, "it has gone meanwhile"
    except Exception as error:  # a node without raymask, or without memory: no word on its disk
        return None, (str(error).strip().splitlines() or [type(error).__name__])[-1][:200]
