"""How fast a run goes, and what its time goes to: measured without waiting for the device."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

LOADER = ("read", "decode", "cut")  # by the loader's threads
DEVICE = ("transfer", "finish")  # the copy to the device, and its share of augmentation
REMOTE = ("pull", "unpack")  # waiting for ingest actors and the network, copying out of the object store

# The values of a line of metrics.jsonl that two runs of one config do not share.
TIMES = ("images_per_s", "data_wait", "data_queue", *(f"data_{part}" for part in (*LOADER, *DEVICE)))
REMOTE_TIMES = (*(f"data_{part}" for part in REMOTE), "data_wire", "data_replaced")  # with ingest=remote, too


class Spans:
    """Seconds by name of what is done `with spans(name)`: on CUDA between two events of the current stream.

    What a CUDA device has not done yet when they are taken counts in the next interval.
    """

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._seconds = dict.fromkeys(DEVICE, 0.0)
        self._open: deque[tuple[str, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        if not self._cuda:
            begun = time.perf_counter()
            yield
            self._seconds[name] += time.perf_counter() - begun
            return
        first, last = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        first.record()
        yield
        last.record()
        self._open.append((name, first, last))

    def take(self) -> dict[str, float]:
        """The seconds since the last call."""
        while self._open and self._open[0][2].query():
            name, first, last = self._open.popleft()
            self._seconds[name] += first.elapsed_time(last) / 1e3
        taken, self._seconds = self._seconds, dict.fromkeys(DEVICE, 0.0)
        return taken


def pace(images: int, seconds: float, timings: Mapping[str, float]) -> dict[str, float]:
    """TIMES of an interval, from the seconds that went into each part of it.

    `data_wait`, `data_transfer` and `data_finish` are shares of the interval. `data_read`, `data_decode` and
    `data_cut` are threads: 1.5 means that one and a half of the loader's were busy with it all the time.
    `data_queue` counts the batches that are ready now. With ingest=remote there are `data_pull` and
    `data_unpack`, shares of the interval, too, `data_wire` in MB/s, and `data_replaced`, a count.
    """
    parts = ("wait", *LOADER, *DEVICE)
    seconds_of = {part: timings["data_wait" if part == "wait" else part] for part in parts}
    return {
        "images_per_s": images / seconds,
        "data_queue": timings["queue"],
        **{f"data_{part}": spent / seconds for part, spent in seconds_of.items()},
        **(_remote(seconds, timings) if "wire" in timings else {}),
    }


def _remote(seconds: float, timings: Mapping[str, float]) -> dict[str, float]:
    shares = {f"data_{part}": timings[part] / seconds for part in REMOTE}
    return {**shares, "data_wire": timings["wire"] / seconds / 1e6, "data_replaced": timings["replaced"]}
