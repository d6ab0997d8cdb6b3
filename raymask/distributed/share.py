"""What a trial gets of the cluster, and how many fit at one time."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from raymask.config import Config
from raymask.distributed.assignment import Assignment
from raymask.distributed.ingest_placing import runs_at_once
from raymask.distributed.preflight import SLACK, Node, Request, cores_beside, fitting, gpus_each, request

# No CPU at all, which Tune does not take for an answer, but the head: the node that stays. A trial that only
# starts workers must not hold a core that they need; two such trials on two cores wait for ever.
_ON_THE_HEAD = {"node:__internal_head__": 0.001}


@dataclass(frozen=True)
class Share:
    """resources: of a trial's own process, in Tune's words; at_once: trials at one time

    cpus, gpus: of the process that trains
    """

    resources: dict[str, float]
    at_once: int
    cpus: float
    gpus: float = 0.0

    def may_use(self, node: Node) -> bool:
        """Whether the process of a trial, or one of its workers, may live on the node."""
        head = self.resources is _ON_THE_HEAD and "node:__internal_head__" in node
        return head or (node.get("CPU", 0.0) >= self.cpus - SLACK and node.get("GPU", 0.0) >= self.gpus)

    def fitted(self, assignment: Assignment) -> Assignment:
        """The assignment with as many threads as a trial has cores."""
        threads = max(1, int(self.cpus))
        data = dict(assignment.tree["data"])
        if data["threads"] is None:
            data["threads"] = threads
        return replace(assignment, tree={**assignment.tree, "data": data}, threads=threads)


def share_out(config: Config, nodes: Sequence[Node], *, at_once: int | None, trials: int) -> Share:
    """Shares out the nodes of a cluster among trials. Raises ValueError where they cannot hold one.

    Where nodes may be waited for (cluster.wait), as many of the trials as are wanted stand in line for them.
    """
    if config.workers is not None:
        asked = request(config, nodes)
        most = runs_at_once(
            nodes, config.ingest, workers=asked.most, fits=lambda left: fitting(asked, left) // asked.most
        )
        most = max(1, most, trials if config.cluster.wait else 0)
        return Share(_ON_THE_HEAD, min(most, at_once or most), asked.cpus, asked.gpus)
    cluster = config.cluster
    gpus = gpus_each(config, nodes)
    asked = Request(1, 1, cluster.cpus or cores_beside(gpus, nodes) or 1.0, gpus)
    most = runs_at_once(nodes, config.ingest, workers=1, fits=lambda left: fitting(asked, left))
    if cluster.wait:
        most = max(most, trials)
    elif not most:
        actors = " beside its ingest actors" if config.ingest.kind == "remote" else ""
        raise ValueError(
            f"a trial needs {asked.cpus:g} CPU and {asked.gpus:g} GPU{actors}, but no node of the cluster "
            "has them: set cluster.cpus and cluster.gpus to less"
        )
    resources = {name.lower(): amount for name, amount in asked.resources.items()}
    return Share(resources, min(most, at_once or most), asked.cpus, asked.gpus)
