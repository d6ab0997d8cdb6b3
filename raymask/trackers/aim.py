"""A run of Aim."""

from collections.abc import Mapping

from raymask.trackers.settings import Aim
from raymask.trackers.tracker import About


class ToAim:
    """Metrics of one Aim run, found again by its hash. Aim replaces the value of a step that comes twice."""

    def __init__(self, settings: Aim, about: About) -> None:
        from aim import Run
        from aim.sdk.errors import MissingRunError

        repo = settings.repo or str(about.home / "aim")
        quiet = {"system_tracking_interval": None, "log_system_params": False, "capture_terminal_logs": False}
        where = f"aim {repo}"
        known = about.identity.called(where)  # None makes a new run
        try:
            # A run that was killed has left its lock, which must not keep it from going on.
            self.run = Run(known, repo=repo, force_resume=known is not None, **quiet)
        except MissingRunError:
            self.run = Run(repo=repo, **quiet)
        self.run.experiment, self.run.name = settings.experiment, about.name
        self.run["config"] = about.config
        about.identity.keep(where, self.run.hash)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Tracks the metrics of a step."""
        for name, value in metrics.items():
            self.run.track(value, name=name, step=step)

    def close(self) -> None:
        """Writes what is left."""
        self.run.close()
