"""From a source of image bytes to batches of crops, in order, by threads.

The room's rule: what a batch holds is a pure function of (settings, source, seed, step, rank, world). The
number of threads, and when each of them runs, changes nothing but the time it takes.
"""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
import torch

from pipelines.bad import BadSamples, Reader
from pipelines.batch import Batch
from pipelines.crew import Crew
from pipelines.data import Data
from pipelines.evaluation import evaluation_images
from pipelines.order import Order
from pipelines.planes import plane_decoder
from pipelines.remote.ahead import Ahead
from pipelines.repeats import Repeated
from pipelines.room import keep_what_is_read
from pipelines.rows import RowMaker, Rows, row_maker
from pipelines.source import Source
from pipelines.streams import fold, stream
from pipelines.timings import Clock, Timings

__all__ = ["Data", "Loader", "Timings", "evaluation_images"]

# b: images of this rank in a batch   v: views of an image   h, w: pixels of a view


class _Filler:
    """What all batches share: where pictures come from, how views are drawn and what becomes of them."""

    def __init__(self, reader: Reader, maker: RowMaker, *, seed: int):
        self.reader, self.maker = reader, maker
        self.key = stream(seed, "crops")
        self.timings = Timings()

    def fill(self, rows: Rows, row: int, sample: int, epoch: int, stop: threading.Event) -> tuple[int, int]:
        """Fills a row; the sample that was used, and the signature of it and its views.

        The views are drawn for the sample that was asked for: a replacement is no copy of its regular turn.
        """
        clock = Clock()
        stored, used = self.reader.pixels(sample, clock, stop)
        key = np.uint64(fold(np.uint64(fold(self.key, np.uint64(epoch))), np.uint64(sample)))
        mark = rows.write(row, stored, key, np.uint64(used))
        clock("cut")
        self.timings.add(clock.seconds)
        return used, mark


class _BatchJob:
    """One batch of this rank on its way: row i becomes the image at `positions[i]`; `stop` ends waiting."""

    def __init__(
        self,
        step: int,
        rows: int,
        positions: np.ndarray,
        order: Repeated,
        filler: _Filler,
        stop: threading.Event,
    ):
        self.step, self.positions, self.global_rows = step, positions, rows
        self.rows = len(positions)
        self.filled = filler.maker.take(self.rows)
        self.asked, self.epochs = order.locate(positions)
        self.samples = np.zeros_like(self.asked)
        self.signatures = np.zeros(self.rows, np.uint64)
        self._filler, self._stop = filler, stop

    def fill(self, row: int) -> None:
        """Reads, decodes and cuts the image of one row."""
        self.samples[row], self.signatures[row] = self._filler.fill(
            self.filled, row, int(self.asked[row]), int(self.epochs[row]), self._stop
        )

    def finish(self) -> "_BatchJob":
        return self


class Loader:
    """Iterates the batches of steps `start` .. `steps` - 1: of each global batch of `batch` images the rows
    whose position p has p % world == rank, in order.

    pin: crops in page-locked memory, for asynchronous copies to a GPU
    bad_log: JSON lines file that names each bad sample once; ranks after the first write beside it. With
        several ranks their trainer looks after the limit (pipelines.bad)
    bad: what counts the bad samples, where its owner is another; `bad_log` then means nothing
    """

    def __init__(
        self,
        data: Data,
        source: Source,
        *,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        steps: int,
        pin: bool = False,
        bad_log: Path | None = None,
        bad: BadSamples | None = None,
    ):
        check_shares(len(source), batch=batch, rank=rank, world=world)
        self._source, self._batch, self._rank, self._world = source, batch, rank, world
        self._start, self._steps = start, steps
        self._threads, self._ahead = data.thread_count, data.prefetch
        self._order = Order(source.shard_sizes, seed, data.shuffle_window, lanes=data.lanes)
        self._repeated = Repeated(self._order, data.repeats)
        if bad is None:
            bad = BadSamples(source, limit=data.max_bad_fraction, log=bad_log, rank=rank, world=world)
        self.bad = bad
        reader = Reader(
            source,
            self._order,
            self.bad,
            max_pixels=data.max_pixels,
            decode=plane_decoder(),
            patience=data.cache.patience,
        )
        mode = "cpu" if data.augment == "auto" else data.augment
        maker = row_maker(mode, data.crops, most=-(-batch // world), pin=pin)
        self._filler = _Filler(reader, maker, seed=seed)
        self._crew: Crew | None = None
        self._fetching: Ahead | None = None
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Batch]:
        """Begins at `start`, ending the iteration before it if there is one."""
        self.close()
        reading = self._repeated.reading(rank=self._rank, world=self._world)
        first, last = (self._repeated.place(step * self._batch) for step in (self._start, self._steps))
        keep_what_is_read(self._source, reading, start=first)
        fetching = self._fetching = Ahead(self._source, reading, start=first, end=last)
        stop = self._stop = threading.Event()  # of this iteration alone: an older one may still be ending
        crew = self._crew = Crew(self._threads, ahead=self._ahead, stop=stop)
        return self._batches(crew, fetching, stop)

    def __len__(self) -> int:
        return max(0, self._steps - self._start)

    def __enter__(self) -> "Loader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take_timings(self) -> dict[str, float]:
        """Since the last call: `data_wait`, the seconds for which batches were waited for, and `read`,
        `decode` and `cut`, seconds summed over threads. As of now: `queue`, the batches that are ready, and
        `bad`, the distinct bad samples."""
        seconds = self._filler.timings.take()
        named = {name: seconds[name] for name in ("data_wait", "read", "decode", "cut")}
        return {**named, "queue": self._crew.ready() if self._crew else 0, "bad": len(self.bad)}

    def close(self) -> None:
        """Ends the threads; the batches that were handed out stay valid."""
        self._stop.set()
        if self._fetching:
            self._fetching.close()
        if self._crew:
            self._crew.close()

    def _batches(self, crew: Crew, fetching: Ahead, stop: threading.Event) -> Iterator[Batch]:
        filled = crew.run(self._jobs(fetching, stop))
        try:
            while True:
                begun = time.perf_counter()
                job = next(filled, None)
                self._filler.timings.add({"data_wait": time.perf_counter() - begun})
                if job is None:
                    return
                yield self._batch_of(job)
        finally:
            stop.set()
            filled.close()
            fetching.close()

    def _jobs(self, fetching: Ahead, stop: threading.Event) -> Iterator[_BatchJob]:
        for step in range(self._start, self._steps):
            done = max(self._start, step - self._ahead - 1) * self._batch  # the positions before are done
            fetching.reach(self._repeated.place(done))
            positions = np.arange(step * self._batch, (step + 1) * self._batch)
            mine = positions[positions % self._world == self._rank]
            yield _BatchJob(step, self._batch, mine, self._repeated, self._filler, stop)

    def _batch_of(self, job: _BatchJob) -> Batch:
        crops, raw = job.filled.result()
        return Batch(
            crops=crops,
            raw=raw,
            labels=torch.tensor([self._source.label(s) for s in job.samples.tolist()], dtype=torch.int64),
            samples=torch.from_numpy(job.samples),
            epochs=torch.from_numpy(job.epochs),
            positions=torch.from_numpy(job.positions),
            step=job.step,
            rows=job.global_rows,
            signature=int(job.signatures.sum(dtype=np.uint64)),
        )


def check_shares(images: int, *, batch: int, rank: int, world: int) -> None:
    """Raises ValueError where a global batch cannot be shared out among the ranks."""
    if batch > images:
        raise ValueError(
            f"the global batch is {batch} images but the data set holds only {images}: give a smaller batch"
        )
    if not world <= batch:
        raise ValueError(
            f"a global batch of {batch} images cannot feed {world} workers: give at least one each"
        )
    if not 0 <= rank < world:
        raise ValueError(f"rank {rank} is not one of {world} workers: ranks count from 0")
