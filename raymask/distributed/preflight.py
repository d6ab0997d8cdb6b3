"""What is checked before workers are started: sentences now, instead of waiting for ever."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from raymask.config import Config
from raymask.distributed.ingest_placing import beside_actors

SLACK = 1e-6  # fractions of a core do not add up to whole ones exactly


@dataclass(frozen=True)
class Request:
    """What a run asks of a cluster: `fewest` to `most` workers with so many CPU cores and GPUs each."""

    fewest: int
    most: int
    cpus: float
    gpus: float

    def __str__(self) -> str:
        many = f"{self.fewest} to {self.most}" if self.fewest < self.most else str(self.most)
        gpus = f" and {self.gpus:g} GPU" if self.gpus else ""
        return f"{many} worker{'s' if self.most > 1 else ''} with {self.cpus:g} CPU{gpus} each"

    @property
    def resources(self) -> dict[str, float]:
        """One worker's, as Ray calls them."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})


Node = dict[str, float]  # its resources by Ray's names


def request(config: Config, nodes: Sequence[Node]) -> Request:
    """What the workers of `config` get of a cluster's nodes: what it says, else a fair share.

    Raises ValueError where the cluster cannot hold the fewest workers, unless it may be waited for.
    """
    assert config.workers is not None
    (fewest, most), cluster = config.workers, config.cluster
    nodes = beside_actors(nodes, config.ingest, workers=most, waits=cluster.wait > 0)
    gpus = gpus_each(config, nodes)
    cpus = cluster.cpus or _share(nodes, most, gpus)
    asked = Request(fewest, most, cpus, gpus)
    held = fitting(asked, nodes)
    if held < fewest and not cluster.wait:
        has = ", ".join(f"{node.get('CPU', 0):g} CPU and {node.get('GPU', 0):g} GPU" for node in nodes)
        fewer = f"workers={held}, or less of " if held else ""
        raise ValueError(
            f"{fewest} worker{'s' if fewest > 1 else ''} need {cpus:g} CPU and {gpus:g} GPU each, but the "
            f"cluster holds {held} of them (its nodes have {has}): set {fewer}cluster.cpus and cluster.gpus"
            f"{'' if held else ' to what a node has'}, or, where an autoscaler brings nodes, cluster.wait=900"
        )
    return asked


def crowded(asked: Request) -> str | None:
    """What is said where workers share out fewer cores than they are; None where each has one."""
    if asked.cpus >= 1:
        return None
    cores = max(1, int(asked.cpus * asked.most + 0.5))
    fewer = f"{asked.fewest}:{cores}" if asked.fewest < cores else f"{cores}"
    if asked.fewest == asked.most:
        fewer = f"{cores}"
    return (
        f"{asked.most} workers share {cores} core{'s' if cores > 1 else ''} and take turns, which costs time "
        f"and the memory of {asked.most} processes: set workers={fewer}, which trains the same run"
    )


def gpus_each(config: Config, nodes: Sequence[Node]) -> float:
    """GPUs of a process that trains: as the config says, else one where a node has any."""
    given = config.cluster.gpus
    return given if given is not None else float(any(node.get("GPU") for node in nodes))


def cores_beside(gpus: float, nodes: Sequence[Node]) -> float | None:
    """CPU cores that every node has for so many of its GPUs, at least 1; None where no node has them."""
    with_gpu = [node for node in nodes if gpus and node.get("GPU", 0) >= gpus]
    shares = [node.get("CPU", 0.0) * gpus // node["GPU"] for node in with_gpu]
    return max(1.0, min(shares)) if shares else None


def fitting(asked: Request, nodes: Sequence[Node]) -> int:
    """How many workers the nodes hold at one time."""
    return sum(
        int(min(node.get(name, 0.0) / amount for name, amount in asked.resources.items()) + SLACK)
        for node in nodes
    )


def _share(nodes: Sequence[Node], most: int, gpus: float) -> float:
    """CPU cores of a worker: those of a node for each of its GPUs, or all cores for all workers."""
    beside = cores_beside(gpus, nodes)
    if beside is not None:
        return beside
    cores = sorted((node.get("CPU", 0.0) for node in nodes), reverse=True)
    if sum(cores) < most:  # a laptop that tries out more workers than it has cores
        return round(max(sum(cores) / most - 5e-5, 1e-4), 4) if len(cores) == 1 else 1.0
    share = max(1.0, sum(cores) // most)
    while share > 1 and sum(core // share for core in cores) < most:
        share -= 1
    return share


def alive() -> list[dict[str, Any]]:
    """The nodes of the cluster that this process has joined."""
    import ray

    return [node for node in ray.nodes() if node["Alive"]]
