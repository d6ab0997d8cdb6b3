"""Where a run is followed beside metrics.jsonl: TensorBoard, MLflow, W&B, Aim, behind one small interface."""

from raymask.trackers.opening import NOBODY, Trackers, open_trackers, refuse_missing
from raymask.trackers.settings import Tracks
from raymask.trackers.tracker import Tracker

__all__ = ["NOBODY", "Tracker", "Trackers", "Tracks", "open_trackers", "refuse_missing"]
