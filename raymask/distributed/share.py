"""What a trial gets of the cluster, and how many fit at one time."""

from dataclasses import dataclass, replace

from raymask.distributed.settings import Cluster
from raymask.distributed.trial import Assignment


@dataclass(frozen=True)
class Share:
    """resources: of one trial, in Tune's words; at_once: trials at one time; cpus: of one trial"""

    resources: dict[str, float]
    at_once: int
    cpus: float

    def fitted(self, assignment: Assignment) -> Assignment:
        """The assignment with as many threads as a trial has cores."""
        threads = max(1, int(self.cpus))
        data = dict(assignment.tree["data"])
        if data["threads"] is None:
            data["threads"] = threads
        return replace(assignment, tree={**assignment.tree, "data": data}, threads=threads)


def share_out(cluster: Cluster, *, at_once: int | None) -> Share:
    """Shares out the cluster that is connected. Raises ValueError where it cannot hold one trial."""
    import ray

    have = ray.cluster_resources()
    gpus = cluster.gpus if cluster.gpus is not None else float(have.get("GPU", 0) >= 1)
    cores = have.get("CPU", 0)
    cpus = cluster.cpus or (max(1.0, cores * gpus // have["GPU"]) if gpus else 1.0)
    wanted = {"CPU": cpus, "GPU": gpus}
    missing = [name for name, many in wanted.items() if many > have.get(name, 0)]
    if missing:
        raise ValueError(
            f"a trial needs {wanted[missing[0]]:g} {missing[0]}, but the cluster has "
            f"{have.get(missing[0], 0):g}: set cluster.{missing[0].lower()}s to less"
        )
    most = min(int(have[name] / many) for name, many in wanted.items() if many)
    resources = {name.lower(): many for name, many in wanted.items() if many}
    return Share(resources, min(most, at_once or most), cpus)
