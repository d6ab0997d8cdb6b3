"""Room for ingest actors: what they leave of a cluster to the workers that train."""

from collections.abc import Callable, Sequence

from raymask.distributed.ingest_settings import Ingest

Node = dict[str, float]  # its resources by Ray's names


def beside_actors(nodes: Sequence[Node], ingest: Ingest, *, workers: int, waits: bool = False) -> list[Node]:
    """The nodes less the cores of the actors of `workers`, which go to nodes without GPUs first, as Ray's do.

    Raises ValueError where they do not fit, unless more nodes are waited for.
    """
    left = [dict(node) for node in nodes]
    missing = workers * ingest.actors if ingest.kind == "remote" else 0
    for node in sorted(left, key=lambda node: node.get("GPU", 0)):
        held = min(missing, int(node.get("CPU", 0) // ingest.cpus))
        missing -= held
        node["CPU"] = node.get("CPU", 0) - held * ingest.cpus
    if missing and not waits:
        has = ", ".join(f"{node.get('CPU', 0):g}" for node in nodes)
        raise ValueError(
            f"ingest.actors={ingest.actors} of ingest.cpus={ingest.cpus} for each of {workers} workers take "
            f"{ingest.cores(workers)} CPU cores, of which {missing * ingest.cpus} find no place (the "
            f"cluster's nodes have {has}): lower them, add CPU nodes, or set cluster.wait where an "
            "autoscaler brings some"
        )
    if ingest.kind == "remote" and not waits and not any(node["CPU"] > 0 for node in left):
        raise ValueError(
            f"the {ingest.cores(workers)} CPU cores of the ingest actors are all that the cluster has, which "
            "leaves none to the workers: lower ingest.actors or ingest.cpus, or add CPU nodes"
        )
    return left


def runs_at_once(
    nodes: Sequence[Node], ingest: Ingest, *, workers: int, fits: Callable[[Sequence[Node]], int]
) -> int:
    """How many runs of `workers` training processes each the nodes hold with the actors of all of them.

    fits: how many they would hold without actors
    """
    for many in range(fits(nodes), 0, -1):
        try:
            left = beside_actors(nodes, ingest, workers=many * workers)
        except ValueError:
            continue
        if fits(left) >= many:
            return many
    return 0
