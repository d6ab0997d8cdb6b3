"""A run of Weights & Biases, offline unless the user has logged in."""

import os
from collections.abc import Mapping
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlparse

from raymask.trackers.settings import WeightsAndBiases
from raymask.trackers.tracker import About


class ToWandb:
    """Metrics of one W&B run, whose id is the run's own: a run that goes on joins it.

    Offline, each start of a run writes a folder of its own with that id. W&B keeps the first value of a step.
    """

    def __init__(self, settings: WeightsAndBiases, about: About) -> None:
        import wandb

        mode = settings.mode
        if mode == "auto":
            mode = "online" if logged_in() else "offline"
        self.run = wandb.init(
            project=settings.project,
            entity=settings.entity,
            id=about.identity.id,
            name=about.name,
            resume="allow",
            mode=mode,
            dir=str(about.folder),
            config=about.config,
            # Other runs of this process, trials for instance, have runs of their own; the terminal is ours.
            settings=wandb.Settings(silent=True, console="off", reinit="create_new"),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of a step; a line and an evaluation of one step are joined."""
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Writes what is left."""
        self.run.finish()


def logged_in() -> bool:
    """Whether there is a key for W&B's server, in the environment or in ~/.netrc. No key is read or kept."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return host in netrc(os.environ.get("NETRC") or Path.home() / ".netrc").hosts
    except (OSError, NetrcParseError):
        return False
