"""Opening the trackers of a run, each by itself."""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raymask import metrics
from raymask.trackers.apart import Apart
from raymask.trackers.identity import Identity
from raymask.trackers.settings import Aim, MLflow, TensorBoard, Track, Tracks, WeightsAndBiases
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

    def log(self, step: int, line: Mapping[str, object]) -> None:
        """Tells all of them; returns at once."""
        for tracker in self._trackers:
            tracker.log(step, numbers(line))

    def close(self) -> None:
        """Ends all of them, waiting a little for what they still have to write."""
        for tracker in self._trackers:
            tracker.close()


NOBODY = Trackers([])  # follows the runs of ranks that do not lead


def numbers(line: Mapping[str, object]) -> dict[str, float]:
    """What of a line of metrics.jsonl a tracker is told."""
    return {
        name: float(value)
        for name, value in line.items()
        if name != "step" and isinstance(value, int | float) and math.isfinite(value)
    }


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
    """The trackers that a run asks for; each opens itself in a thread of its own, and catches up.

    folder, name, config: of the run; begin: the first step whose lines are still to come
    say: how a tracker's failure is told, once; the run goes on without it
    """
    if not tracks:
        return NOBODY
    identity = Identity(folder)
    return Trackers(_apart(one, folder, name, config, begin, identity, say) for one in tracks)


def _apart(
    settings: Track, folder: Path, name: str, config: dict[str, Any], begin: int, identity: Identity, say: Say
) -> Apart:
    """A tracker that first gets what it has missed: all that was before it was asked for, or the last lines
    before the run was killed."""
    place = settings.model_dump_json()
    since = max(0, min(begin, identity.reached(place)))
    about = About(folder, name, config, since, identity)
    missed = (
        (line["step"], numbers(line))
        for line in metrics.read(folder / "metrics.jsonl")
        if since <= line["step"] < begin
    )
    return Apart(
        settings.kind,
        partial(_open, settings, about),
        missed=missed,
        reached=partial(identity.reach, place),
        say=say,
    )


def _open(settings: Track, about: About) -> Tracker:
    module, name, _ = _KINDS[type(settings)]
    return getattr(import_module(module), name)(settings, about)
