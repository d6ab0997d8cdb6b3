"""Opening the trackers of a run, each by itself."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymask.trackers.apart import Apart
from raymask.trackers.identity import Identity
from raymask.trackers.settings import Aim, MLflow, TensorBoard, Tracks, WeightsAndBiases
from raymask.trackers.tracker import About, Tracker

# By settings: the module with the tracker, its class, and the packages that it needs.
_KINDS: dict[type, tuple[str, str, tuple[str, ...]]] = {
    TensorBoard: ("raymask.trackers.tensorboard", "ToTensorBoard", ("tensorboard",)),
    MLflow: ("raymask.trackers.mlflow", "ToMLflow", ("mlflow", "sqlalchemy", "alembic")),
    WeightsAndBiases: ("raymask.trackers.wandb", "ToWandb", ("wandb",)),
    Aim: ("raymask.trackers.aim", "ToAim", ("aim",)),
}

Say = Callable[[str, str], None]  # a topic, and a sentence that is said once on it


class Trackers:
    """All trackers of a run as one. Only numbers reach them, without those that are not finite."""

    def __init__(self, trackers: Iterable[Tracker]) -> None:
        self._trackers = list(trackers)

    def log(self, step: int, metrics: Mapping[str, object]) -> None:
        """Tells all of them; returns at once."""
        numbers = {
            name: float(value)
            for name, value in metrics.items()
            if name != "step" and isinstance(value, int | float) and math.isfinite(value)
        }
        for tracker in self._trackers:
            tracker.log(step, numbers)

    def close(self) -> None:
        """Ends all of them, waiting a little for what they still have to write."""
        for tracker in self._trackers:
            tracker.close()


NOBODY = Trackers([])  # follows the runs of ranks that do not lead


def refuse_missing(tracks: Tracks) -> None:
    """Raises ValueError for a tracker whose package is not installed."""
    for settings in tracks:
        missing = [name for name in _KINDS[type(settings)][2] if find_spec(name) is None]
        if missing:
            raise ValueError(
                f"track={settings.kind} needs {' and '.join(missing)}, which this Python does not have: "
                f"pip install 'raymask[{settings.kind}]', or leave it out of track"
            )


def open_trackers(
    tracks: Tracks, folder: Path, *, name: str, config: dict[str, Any], begin: int, say: Say
) -> Trackers:
    """The trackers that a run asks for; each opens itself in a thread of its own.

    folder, name, config, begin: what they are told of the run (About)
    say: how a tracker's failure is told, once; the run goes on without it
    """
    if not tracks:
        return NOBODY
    about = About(folder, name, config, begin, Identity(folder))
    return Trackers(Apart(one.kind, partial(_open, one, about), say=say) for one in tracks)


def _open(settings: Any, about: About) -> Tracker:
    module, name, _ = _KINDS[type(settings)]
    return getattr(import_module(module), name)(settings, about)
