"""Runs on a cluster, as a job of its own that needs no raymask there: prints what each node has, as JSON.

Sent as text (`python -c`), so it imports nothing of ours.
"""

import json
import logging
from typing import Any

MARK = "RAYMASK_NODES "


def facts() -> dict:
    """What this node has: versions of packages, and the bytes of /dev/shm."""
    import os
    import platform
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    shm = os.statvfs("/dev/shm") if os.path.isdir("/dev/shm") else None  # noqa: PTH112
    return {
        "python": platform.python_version(),
        "versions": {name: installed(name) for name in ("ray", "torch", "raymask")},
        "shm": shm.f_blocks * shm.f_frsize if shm else 0,
        "cores": os.cpu_count(),
    }


def all_nodes() -> list[dict]:
    """The facts of every node that lives, with Ray's own figures; `error` where a node gave none."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(logging_level=logging.ERROR, log_to_driver=False)
    ask = ray.remote(facts).options
    nodes = [node for node in ray.nodes() if node["Alive"]]
    asked = [
        ask(
            num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        ).remote()
        for node in nodes
    ]
    ray.wait(asked, num_returns=len(asked), timeout=60)
    found = []
    for node, answer in zip(nodes, asked):
        here: dict[str, Any] = {"ip": node["NodeManagerAddress"], "resources": node["Resources"]}
        try:
            here.update(ray.get(answer, timeout=0.1))  # type: ignore[arg-type]
        except Exception as error:  # whatever a node says instead of its facts is a finding, too
            here["error"] = str(error).splitlines()[0] if str(error) else type(error).__name__
        found.append(here)
    return found


if __name__ == "__main__":
    print(MARK + json.dumps(all_nodes()), flush=True)  # noqa: T201
