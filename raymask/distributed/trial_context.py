"""A Tune trial as the host of a run: an ordinary run directory, and small pointers to it for Tune.

Tune stores and hands around pointers only: which run, which of its checkpoints, what was measured. The run's
own directory holds everything else, as in a plain process.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from raymask import checkpoint
from raymask.context import Ask, LocalContext
from raymask.distributed.lineage import History
from raymask.run import write_json
from raymask.state import Snapshot

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

    def write(self, folder: Path) -> None:
        """Writes it into a folder, as Tune's checkpoint."""
        (folder / POINTER).write_text(json.dumps(asdict(self)))


def read_pointer(folder: Path) -> Pointer:
    """The pointer in a folder."""
    return Pointer(**json.loads((folder / POINTER).read_text()))


class TrialContext:
    """A LocalContext over the trial's run directory that also tells Tune what was measured.

    An evaluation waits for the checkpoint of its step, so that Tune gets both at once: a population copies
    what it has just judged.
    metric: the name of the value that is optimised; values, history: as of the current start
    seconds: of the device, before this start; costs: what is counted beside it, until a step
    """

    def __init__(
        self,
        local: LocalContext,
        *,
        trial: str,
        batch: int,
        metric: str,
        values: Mapping[str, Any],
        history: History,
        seconds: float,
        costs: Callable[[int], dict[str, float]],
    ) -> None:
        self.local = local
        self.world = local.world
        self.trial = trial
        self.batch = batch
        self.metric = metric
        self.values = dict(values)
        self.history = history
        self.before = seconds
        self.costs = costs
        self.clock = _clock(local.device.type)
        self.measured: dict[str, float] = {}

    @property
    def rank(self) -> int:
        """Number of this process in the run."""
        return self.local.rank

    @contextmanager
    def latest(self) -> Iterator[Path | None]:
        """The run's own latest checkpoint; one that came from another trial was put there before."""
        with self.local.latest() as found:
            yield found

    def report(self, metrics: Mapping[str, float], *, step: int, save: Snapshot | None = None) -> None:
        """Collects what is measured; with a checkpoint, hands it to Tune, which may end the trial here."""
        self.measured |= {name: value for name, value in metrics.items() if name.startswith("eval/")}
        if "loss" in metrics:
            self.measured["loss"] = metrics["loss"]
        self.local.report(metrics, step=step, save=save)
        if save is not None and self.metric in self.measured:
            self.local.finish()  # Tune is told of complete checkpoints only
            self._tell(step)
            self.measured = {}

    def asked(self) -> Ask | None:
        """Nothing: Tune ends a trial at its reports, never between them."""
        return None

    def finish(self) -> None:
        """Waits until every checkpoint is complete."""
        self.local.finish()

    def _tell(self, step: int) -> None:
        from ray import tune

        found = checkpoint.latest(self.local.folder)
        assert found is not None, "it was just written"
        seconds = self.before + self.clock()
        pointer = Pointer(self.trial, str(found), step, self.history, seconds)
        result = {
            "metric": float(self.measured[self.metric]),
            "images": step * self.batch,
            "step": step,
            "seconds": seconds,
            "measured": dict(self.measured),
            "costs": self.costs(step),
            "values": self.values,
            "history": self.history,
        }
        write_json(self.local.folder.parent / NOTE, asdict(pointer))
        with tempfile.TemporaryDirectory() as folder:
            pointer.write(Path(folder))
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def _clock(device: str):
    """Seconds of the device from now on: they pass on an accelerator, a CPU counts those that it worked."""
    now = time.process_time if device == "cpu" else time.perf_counter
    start = now()
    return lambda: now() - start
