"""A Tune trial as the host of a run: an ordinary run directory, and small pointers to it for Tune.

Tune stores and hands around pointers only: which run, which of its checkpoints, what was measured. The run's
own directory holds everything else, as in a plain process.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from raymask.context import Ask, LocalContext
from raymask.distributed.account import Account, told
from raymask.distributed.gauges import Gauges
from raymask.signals import asked_to_stop
from raymask.state import Snapshot
from raymask.world import World


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
        self.stopping = False

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
        if save is not None and self.stopping:
            self.account.rest(self.local.run, seconds=self.clock())
        elif save is not None:
            self.account.tell(self.local.run, self.measured, step=step, seconds=self.clock())
            self.measured = {}

    def asked(self) -> Ask | None:
        """To stop, if the directory of the search or of the trial says so; Tune itself ends it in reports."""
        stops = asked_to_stop(self.local.run.parent.parent) or self.local.asked() == "stop"
        self.stopping = self.stopping or stops
        return "stop" if stops else None

    def finish(self) -> None:
        """Waits until every checkpoint is complete."""
        self.local.finish()


def _clock(device: str) -> Callable[[], float]:
    """Seconds of the device from now on: they pass on an accelerator, a CPU counts those that it worked."""
    now = time.process_time if device == "cpu" else time.perf_counter
    start = now()
    return lambda: now() - start
