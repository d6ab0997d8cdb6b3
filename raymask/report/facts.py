"""What a run directory says about its run."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from math import log
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from pipelines.badlog import read_bad
from raymask import metrics
from raymask.trained import Trained, open_trained

if TYPE_CHECKING:
    from raymask.config import Config


@dataclass(frozen=True)
class Facts:
    """A run as it lies on the disk; `network` is whose backbone the pictures show."""

    run: Path
    trained: Trained

    @property
    def config(self) -> "Config":
        return self.trained.config

    @cached_property
    def lines(self) -> list[dict]:
        return list(metrics.read(self.run / "metrics.jsonl"))

    @property
    def training(self) -> list[dict]:
        """The lines of metrics.jsonl that training wrote."""
        return [line for line in self.lines if "loss" in line]

    @property
    def evaluations(self) -> list[dict]:
        """The lines that evaluations wrote."""
        return [line for line in self.lines if any(name.startswith("eval/") for name in line)]

    @property
    def uniform(self) -> float | None:
        """ln K of a method with prototypes."""
        prototypes = getattr(getattr(self.config.method, "head", None), "out_dim", None)
        return None if prototypes is None else log(prototypes)

    @property
    def results(self) -> dict[str, dict[str, float]]:
        """The newest results by what was measured: eval (trained), untrained, pixels."""
        found: dict[str, dict[str, float]] = {}
        lines = [line for line in self.evaluations if line["step"] == 0]
        lines = [
            {name.replace("eval/", "untrained/"): value for name, value in line.items()} for line in lines
        ]
        for line in [*lines, *self.evaluations, *self._written()]:
            for name, value in line.items():
                measured, _, metric = name.partition("/")
                if metric:
                    found.setdefault(measured, {})[metric] = value
        return found

    def _written(self) -> list[dict]:
        """What `raymask evaluate` left, oldest first."""
        files = sorted((self.run / "eval").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
        found = [json.loads(file.read_text()) for file in files]
        return [line.get("results", {name: v for name, v in line.items() if "/" in name}) for line in found]

    @property
    def seconds(self) -> float:
        """Time spent in training steps, evaluations and checkpoints left out."""
        images = [0, *(line["images"] for line in self.training)]
        return sum(
            (after - before) / line["images_per_s"]
            for before, after, line in zip(images, images[1:], self.training)
            if line.get("images_per_s")
        )

    @property
    def pace(self) -> float:
        """Images a second, the median line."""
        return median([line["images_per_s"] for line in self.training]) if self.training else 0.0

    @property
    def views(self) -> float:
        """Masked views that a step makes of each image; 1 where a method does not say."""
        return median([line.get("views", 1.0) for line in self.training]) if self.training else 1.0

    @property
    def wait(self) -> float:
        """Share of the time that training waited for data, without the first line (it compiles)."""
        lines = [line for line in self.training[1:] or self.training if "data_wait" in line]
        return sum(line["data_wait"] for line in lines) / len(lines) if lines else 0.0

    @property
    def environment(self) -> dict:
        file = self.run / "env.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def bad(self) -> Counter:
        """Bad samples by cause, of all ranks."""
        return Counter(read_bad(self.run / "bad_samples.jsonl").values())


def read_facts(run: Path | str) -> Facts:
    """The facts of a run. Raises ValueError where it has no checkpoint yet."""
    run = Path(run)
    if not (run / "config.yaml").exists():
        raise ValueError(f"{run} is no run directory: there is no config.yaml in it")
    trained = open_trained(run)
    return Facts(run, trained)
