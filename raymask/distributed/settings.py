"""How many workers a run has and which cluster they live on: settings, without importing Ray."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeFloat, PositiveFloat, PositiveInt

from pipelines.settings import Settings


def _spelled_in_full(value: Any) -> Any:
    """[2, 8] from "2:8", [4, 4] from 4; what is neither is left to be refused."""
    try:
        ends = [int(end) for end in str(value).split(":")] if isinstance(value, int | str) else list(value)
    except (TypeError, ValueError):
        ends = []
    if isinstance(value, bool) or len(ends) not in (1, 2) or not 1 <= ends[0] <= ends[-1]:
        raise ValueError(
            f"workers is {value!r}: give a number such as 4, a range such as 2:8, or null for this process"
        )
    return [ends[0], ends[-1]]


# Fewest and most processes of a run; they are equal unless it is elastic.
Workers = Annotated[tuple[PositiveInt, PositiveInt], BeforeValidator(_spelled_in_full)]


class Cluster(Settings):
    """The Ray cluster that `workers` live on.

    address: null starts one on this machine for as long as the run; auto is the one this machine belongs to;
        or HOST:PORT
    cpus: CPU cores of a worker; null shares out what there is
    gpus: GPUs of a worker; null is one where the cluster has any, else none
    max_failures: how often workers may die before the run is given up (a preempted node does not count)
    wait: seconds for which workers may be missing, for an autoscaler to bring them; 0 refuses at once what
        the cluster cannot hold
    resize: seconds between two looks at whether an elastic run may have more workers
    """

    address: str | None = None
    cpus: PositiveFloat | None = None
    gpus: NonNegativeFloat | None = None
    max_failures: int = Field(10, ge=0)
    wait: NonNegativeFloat = 0
    resize: PositiveFloat = 60
