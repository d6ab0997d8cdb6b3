"""What every trial of a search is told, and the config that it makes of its values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raymask.config import Config, to_tree
from raymask.distributed.space import Values, configure


@dataclass(frozen=True)
class Assignment:
    """What every trial of a search is told.

    tree: the config that all start from; space: name of the space, for messages
    folder: the trials' directories; images: a trial's length; checks: its evaluations
    metric: what is optimised; counts: whether multiply-accumulates are counted, too
    moves: whether a population changes values on the way; the run's config then has them as schedules
    threads: of torch, None for its own choice
    """

    tree: Mapping[str, Any]
    space: str
    folder: str
    images: int
    checks: int
    metric: str
    counts: bool
    moves: bool
    threads: int | None = None

    def config(self, name: str, values: Values) -> Config:
        """The complete config of a trial. Raises ValueError where values do not fit, or it is too short."""
        given = configure(self.tree, values, space=self.space)
        batch = given.train.global_batch
        every = self.images // batch // self.checks
        if every < 1:
            raise ValueError(
                f"{self.images} images are {self.images // batch} steps of train.global_batch={batch}, too "
                f"few for checks={self.checks} evaluations of a trial: give a larger budget, fewer trials or "
                "fewer checks"
            )
        lengths = {
            "run.name": name,
            "run.root": self.folder,
            "train.steps": every * self.checks,
            "train.checkpoint_images": every * batch,
            # Once is at the end; more often includes the untrained start.
            "evaluate.every_images": every * batch if self.checks > 1 else None,
        }
        if self.moves:  # others may want to go on from any checkpoint of a population
            lengths["train.keep"] = self.checks + 1
        return configure(to_tree(given), lengths, space=self.space)
