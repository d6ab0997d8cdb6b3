"""A Tune trial as the host of a run: an ordinary run directory, and small pointers to it for Tune.

Tune stores and hands around pointers only: which run, which of its checkpoints, what was measured. The run's
own directory holds everything else, as in a plain process.
"""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from math import isfinite
from pathlib import Path

from raymask import checkpoint
from raymask.context import Ask, LocalContext
from raymask.distributed.gauges import Gauges
from raymask.distributed.lineage import History
from raymask.distributed.space import Values
from raymask.run import write_json
from raymask.state import Snapshot
from raymask.world import World

POINTER = "pointer.json"
NOTE = "trial.json"  # the last pointer, in the run directory, for when Tune is gone


@dataclass(frozen=True)
class Pointer:
    """What Tune keeps as the checkpoint of a trial.

    trial: its name; checkpoint: a directory of the run's; step: of it
    history: the settings that a population changed on the way; seconds: of the device, until then
    """

    trial: str
    checkpoint: str
    step: int
    history: History = field(default_factory=list)
    seconds: float = 0.0


def read_pointer(folder: Path) -> Pointer:
    """The pointer in a folder."""
    return Pointer(**json.loads((folder / POINTER).read_text()))


def told(line: Mapping[str, float]) -> dict[str, float]:
    """What of a line of metrics.jsonl a search hears: evaluations, and the loss."""
    wanted = {name: value for name, value in line.items() if name == "loss" or name.startswith("eval/")}
    return {name: value for name, value in wanted.items() if value is not None and isfinite(value)}


@dataclass(frozen=True)
class Account:
    """What a trial has to account for.

    metric: what is optimised; values, history: as of the current start
    seconds: of the device, before this start; batch: images of a step
    costs: what is counted beside seconds, until a step
    """

    trial: str
    metric: str
    values: Values
    history: History
    seconds: float
    batch: int
    costs: Callable[[int], dict[str, float]]

    def tell(self, checkpoints: Path, measured: Mapping[str, float], *, step: int, seconds: float) -> None:
        """Notes in the run directory, and tells Tune, which may end the trial here, what was measured.

        checkpoints: the folder of the run's, with a complete one of this step; seconds: since this start
        Raises ValueError if the metric was not among what was measured.
        """
        from ray import tune

        if self.metric not in measured:
            raise ValueError(
                f"{self.metric} was not measured, or is not finite; there is {', '.join(measured)}"
            )
        found = checkpoint.latest(checkpoints)
        assert found is not None, "it was just written"
        pointer = Pointer(self.trial, str(found), step, self.history, self.seconds + seconds)
        result = {
            "metric": float(measured[self.metric]),
            "images": step * self.batch,
            "step": step,
            "seconds": pointer.seconds,
            "measured": dict(measured),
            "costs": self.costs(step),
            "values": self.values,
            "history": self.history,
        }
        write_json(checkpoints.parent / NOTE, asdict(pointer))
        with tempfile.TemporaryDirectory() as folder:
            write_json(Path(folder) / POINTER, asdict(pointer))
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


class TrialContext:
    """A LocalContext over the trial's run directory that also tells Tune what was measured.

    An evaluation waits for the checkpoint of its step, so that Tune gets both at once: a population copies
    what it has just judged.
    """

    def __init__(self, local: LocalContext, account: Account) -> None:
        self.local = local
        self.gauges = Gauges(run=local.run.name, rank=local.rank)
        self.world: World = local.world
        self.account = account
        self.clock = _clock(local.device.type)
        self.measured: dict[str, float] = {}

    @property
    def rank(self) -> int:
        """Number of this process in the run."""
        return self.local.rank

    def latest(self) -> AbstractContextManager[Path | None]:
        """The run's own latest checkpoint; one that came from another trial was put there before."""
        return self.local.latest()

    def report(self, metrics: Mapping[str, float], *, step: int, save: Snapshot | None = None) -> None:
        """Collects what is measured; with a checkpoint, hands it to Tune, which may end the trial here."""
        self.measured |= told(metrics)
        with self.gauges.saving(step) if save is not None else nullcontext():
            self.local.report(metrics, step=step, save=save)
            if save is not None:
                self.local.finish()  # Tune may let another trial go on from it at once
        self.gauges.log(step, metrics)
        if save is not None:
            self.account.tell(self.local.folder, self.measured, step=step, seconds=self.clock())
            self.measured = {}

    def asked(self) -> Ask | None:
        """Nothing: Tune ends a trial at its reports, never between them."""
        return None

    def finish(self) -> None:
        """Waits until every checkpoint is complete."""
        self.local.finish()


def _clock(device: str) -> Callable[[], float]:
    """Seconds of the device from now on: they pass on an accelerator, a CPU counts those that it worked."""
    now = time.process_time if device == "cpu" else time.perf_counter
    start = now()
    return lambda: now() - start
