"""Who decodes: training processes themselves, or actors on other nodes. Settings, without importing Ray."""

from typing import Any, Literal

from pydantic import PositiveInt, model_validator

from pipelines.settings import Settings


class Ingest(Settings):
    """Where images become batches. A bare name stands for `kind`. The batches are the same either way.

    kind: local decodes in each training process; remote in Ray actors of its own, where there are cores
    actors: for each training process; cpus: cores and threads of each actor
    ahead: batches that each actor may have ready, beyond `data.prefetch` of them on each side
    """

    kind: Literal["local", "remote"] = "local"
    actors: PositiveInt = 1
    cpus: PositiveInt = 4
    ahead: PositiveInt = 2

    @model_validator(mode="before")
    @classmethod
    def _from_a_bare_name(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value

    def cores(self, workers: int) -> int:
        """CPU cores that the actors of `workers` training processes take."""
        return workers * self.actors * self.cpus if self.kind == "remote" else 0
