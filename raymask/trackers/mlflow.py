"""A run of MLflow: by default in a SQLite file beside the runs, without a server."""

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raymask.trackers.settings import MLflow
from raymask.trackers.tracker import About

# Read by MLflow when it is imported or asks its server; what a user has set stays.
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
_LONGEST = 500  # characters of a parameter, which every store takes
_PARAMS = 100  # of one call


class ToMLflow:
    """Metrics of one MLflow run, which a resumed run finds again by the id that is kept in the run directory.

    MLflow cannot take points back: where a run repeats steps, those that are there already are left out.
    """

    def __init__(self, settings: MLflow, about: About) -> None:
        for name, value in _QUIET.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient
        from mlflow.entities import Metric

        own = f"sqlite:///{about.home / 'mlflow.db'}"
        uri = settings.uri or os.environ.get("MLFLOW_TRACKING_URI") or own
        self._metric = Metric
        self._reached: dict[str, int] = {}
        with _alone(uri):
            _lay_out(uri)
            self.client = MlflowClient(tracking_uri=uri)
            found = self._found(about, uri)
            self._again = found is not None
            artifacts = (about.home / "mlartifacts").as_uri() if uri == own else None
            self.run = found or self._created(self._experiment(settings.experiment, artifacts), about)
            about.identity.keep(f"mlflow {uri}", self.run)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics whose step is new."""
        now = int(time.time() * 1000)
        fresh = [(name, value) for name, value in metrics.items() if step > self._last(name)]
        if fresh:
            points = [self._metric(name, value, now, step) for name, value in fresh]
            self.client.log_batch(self.run, metrics=points)
            self._reached |= {name: step for name, _ in fresh}

    def close(self) -> None:
        """Marks the run as finished; one that goes on is marked as running again."""
        self.client.set_terminated(self.run)

    def _last(self, name: str) -> int:
        """The last step of a metric that the store has, asked once for a run that goes on."""
        if name not in self._reached:
            known = self.client.get_metric_history(self.run, name) if self._again else []
            self._reached[name] = max((point.step for point in known), default=-1)
        return self._reached[name]

    def _found(self, about: About, uri: str) -> str | None:
        """The run that this one was in this store, running again; None if it never was there."""
        from mlflow.exceptions import MlflowException

        known = about.identity.called(f"mlflow {uri}")
        if known is None:
            return None
        try:
            self.client.update_run(known, status="RUNNING")
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return None
            raise
        return known

    def _experiment(self, name: str, artifacts: str | None) -> str:
        """The id of the experiment, which is made if nobody did; another run may do so at the same time."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return found.experiment_id
        try:
            return self.client.create_experiment(name, artifact_location=artifacts)
        except MlflowException as error:
            found = self.client.get_experiment_by_name(name)
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
                raise
            return found.experiment_id

    def _created(self, experiment: str, about: About) -> str:
        from mlflow.entities import Param

        tags = {"raymask.run": str(about.folder), "raymask.id": about.identity.id}
        run = self.client.create_run(experiment, run_name=about.name, tags=tags).info.run_id
        params = [Param(key, str(value)[:_LONGEST]) for key, value in flat(about.config)]
        for begin in range(0, len(params), _PARAMS):
            self.client.log_batch(run, params=params[begin : begin + _PARAMS])
        return run


def flat(tree: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a config by their dotted keys."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _file(uri: str) -> Path | None:
    """The file of an SQLite store."""
    return Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None


@contextmanager
def _alone(uri: str) -> Iterator[None]:
    """One process at a time: trials that begin together would all lay out the same SQLite file."""
    store = _file(uri)
    if store is None:
        yield
        return
    with store.with_name(f".{store.name}.lock").open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _lay_out(uri: str) -> None:
    """Makes an SQLite store that is not there, beside its place: MLflow takes seconds to make its tables, and
    cannot go on with half of them after a kill."""
    from mlflow import MlflowClient

    store = _file(uri)
    if store is not None and not store.exists():
        beside = store.with_name(f".{store.name}.new")
        beside.unlink(missing_ok=True)
        MlflowClient(tracking_uri=f"sqlite:///{beside}").search_experiments(max_results=1)
        beside.replace(store)
