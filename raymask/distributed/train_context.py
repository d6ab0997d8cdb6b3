"""A Ray Train worker as the host of a run."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from signal import SIGTERM

from raymask.context import Ask, LocalContext
from raymask.distributed import places
from raymask.distributed.bell import Bell
from raymask.distributed.gauges import Gauges
from raymask.state import Snapshot
from raymask.world import World

_POLL = 1.0  # seconds between two looks of a lone worker; several look together, at lines of metrics.jsonl


class TrainContext:
    """Checkpoints lie in the run directory, as anywhere; Ray Train says which nodes go.

    Every worker makes one, and asks at the same steps as the others. Ray Train is told nothing: its `report`
    waits until the controller has looked, every two seconds, and nobody needs what it would hear.
    """

    def __init__(self, local: LocalContext, *, bell: Bell) -> None:
        import ray.train

        self.local = local
        self._bell = bell
        self._listened = 0.0
        self.gauges = Gauges(run=local.run.name, rank=local.rank)
        self.world: World = local.world
        self._preemption = ray.train.get_preemption_info
        self._looked = 0.0
        self._saved_for: tuple[str, ...] = ()
        if self.world.leads:
            places.note(local.run)

    @property
    def rank(self) -> int:
        """Number of this worker in the run."""
        return self.world.rank

    def latest(self) -> AbstractContextManager[Path | None]:
        """The checkpoint that `last` names in the run directory."""
        return self.local.latest()

    def report(self, metrics: Mapping[str, float], *, step: int, save: Snapshot | None = None) -> None:
        """Has the checkpoint written into the run directory, and shows metrics to Ray's own monitoring."""
        with self.gauges.saving(step) if save is not None else nullcontext():
            self.local.report(metrics, step=step, save=save)
        self.gauges.log(step, metrics)

    def asked(self) -> Ask | None:
        """As a plain process; and to save once for each set of nodes that Ray says will go."""
        if self.world.leads:
            self._listen()
        asked = self.local.asked()
        if asked is not None or not self._may_look():
            return asked
        leaving = self._preemption()
        if leaving is None or tuple(leaving.preempted_node_ids) == self._saved_for:
            return None
        self._saved_for = tuple(leaving.preempted_node_ids)
        return "save"

    def finish(self) -> None:
        """Waits until all checkpoints are written."""
        self.local.finish()

    def _listen(self) -> None:
        """Passes on that the driver rang, as if it had sent this process a signal."""
        stop, now = self.local.stop, time.monotonic()
        if stop is not None and stop.received is None and now - self._listened > _POLL:
            self._listened = now
            stop.received = SIGTERM if self._bell.is_rung() else None

    def _may_look(self) -> bool:
        """Several workers look whenever they are asked, since that is a collective; one need not so often."""
        now = time.monotonic()
        if self.world.size == 1 and now - self._looked < _POLL:
            return False
        self._looked = now
        return True
