"""What Tune calls in the driver: for the next trial's settings, and with what the trials report."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from raymask.distributed.proposals import Proposer
from raymask.distributed.results import Record, Results
from raymask.distributed.table import Table
from raymask.signals import Stopped, StopRequest, ask_to_stop, asked_to_stop


def name_of(trial: Any) -> str:
    """Our name of Tune's trial; its config would say another's after an exploit."""
    return trial.custom_dirname


class Asker(Searcher):
    """Hands out the trials that a killed driver left, then what the proposer asks for."""

    def __init__(self, begin: Callable[[], dict | None]) -> None:
        super().__init__(metric="metric", mode="max")  # Tune wants some; the proposer knows better
        self.begin = begin

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict, **spec: Any) -> bool:
        """Nothing to set: the proposer knows what it optimises."""
        return True

    def suggest(self, trial_id: str) -> Any:
        """The config of the next trial, or FINISHED."""
        return self.begin() or Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict | None = None, error: bool = False) -> None:
        """Watch tells the proposer."""

    def save(self, checkpoint_path: str) -> None:
        """results.json holds what matters."""

    def restore(self, checkpoint_path: str) -> None:
        """results.json holds what matters."""


class Ending(tune.Stopper):
    """Ends a search that was asked to stop, once its trials have: each saves a checkpoint first.

    running: whether a trial trains, as of Tune's last look around
    """

    def __init__(self, folder: Path, stop: StopRequest) -> None:
        self.folder = folder
        self.stop = stop
        self.running = False

    @property
    def asked(self) -> bool:
        """Whether somebody asked, by a signal or a file, which trials look for on whatever machine."""
        asked = asked_to_stop(self.folder)
        if not asked and self.stop.received is not None:
            ask_to_stop(self.folder)
        return asked or self.stop.received is not None

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Never by what a trial reports."""
        return False

    def stop_all(self) -> bool:
        """Whether what has not begun, or waits, need not."""
        return self.asked and not self.running


class Watch(tune.Callback):
    """Writes down what trials report, tells the proposer, and keeps the table going.

    images: of whole trials, by name
    """

    def __init__(
        self,
        results: Results,
        table: Table,
        proposer: Proposer | None,
        *,
        images: dict[str, int],
        ending: Ending,
    ) -> None:
        self.results = results
        self.table = table
        self.proposer = proposer
        self.images = images
        self.ending = ending

    def on_trial_result(self, iteration: int, trials: list, trial: Any, result: dict, **info: Any) -> None:
        """A trial was evaluated."""
        record = self.results.records[name_of(trial)]
        record.add(result)
        if self.proposer is not None:
            self.proposer.note(record.id, result["metric"], check=result["images"])
        self.results.write(now=False)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial came to its end, or was stopped."""
        record = self.results.records[name_of(trial)]
        if record.images >= self.images[record.id]:
            record.state = "done"
        elif self.ending.asked:
            return  # it goes on from its checkpoint when the search does
        else:
            record.state = "stopped"
        self._tell(record)

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """A trial failed, and the search goes on without it; or it was asked to stop, alone or with all."""
        record, cause = self.results.records[name_of(trial)], _first_cause(trial)
        if self.ending.asked:
            return  # what else may be wrong with it shows again when the search goes on
        if cause.startswith(f"{Stopped.__module__}.{Stopped.__name__}"):
            record.state = "stopped"
        else:
            record.state, record.error = "failed", cause
        self._tell(record)

    def on_step_end(self, iteration: int, trials: list, **info: Any) -> None:
        """Tune looked around."""
        self.ending.running = any(trial.status == trial.RUNNING for trial in trials)
        if self.ending.asked:
            self.table.say_once("stopping: trials that run write a checkpoint first")
        self.table.show()

    def _tell(self, record: Record) -> None:
        scores = None if record.state == "failed" else self.results.scores(record)
        if self.proposer is not None:
            self.proposer.tell(record.id, scores, ended=record.state == "done")
        self.results.write()


def _first_cause(trial: Any) -> str:
    """The last line of what a trial's process raised."""
    written = Path(trial.error_file) if trial.error_file else None
    if written is None or not written.exists():
        return "its process ended"
    lines = [line.strip() for line in written.read_text().splitlines() if line.strip()]
    return lines[-1] if lines else "its process ended"
