"""What Prometheus can see of a run on a Ray cluster: gauges that Ray's own agents export; one more tracker.

Ray puts `ray_` before their names and adds the node. Every worker has its own, told apart by `rank`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

# By the name in a line of metrics.jsonl: what Prometheus calls it, and what it is.
GAUGES = {
    "step": ("raymask_step", "Steps done"),
    "progress": ("raymask_progress", "Share of the run that is done"),
    "loss": ("raymask_loss", "Loss, mean over the interval and all ranks"),
    "images_per_s": ("raymask_images_per_s", "Images a second of the whole run"),
    "data_wait": ("raymask_data_wait", "Share of the time that this rank waited for data"),
    "checkpoint_seconds": (
        "raymask_checkpoint_seconds",
        "Seconds for which the last checkpoint held up training",
    ),
}
TAGS = ("run", "rank")


class Gauges:
    """The gauges of one worker. Made within a process that has joined a cluster."""

    def __init__(self, *, run: str, rank: int) -> None:
        from ray.util.metrics import Gauge

        tags = dict(zip(TAGS, (run, str(rank))))
        self._gauges = {name: Gauge(*named, tag_keys=TAGS) for name, named in GAUGES.items()}
        for gauge in self._gauges.values():
            gauge.set_default_tags(tags)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Sets those that are among the metrics, and the step."""
        for name, value in {**metrics, "step": step}.items():
            if name in self._gauges and value is not None:
                self._gauges[name].set(float(value))

    @contextmanager
    def saving(self, step: int) -> Iterator[None]:
        """Around what training waits for while a checkpoint is made."""
        begun = time.perf_counter()
        yield
        self.log(step, {"checkpoint_seconds": time.perf_counter() - begun})
