"""`ingest=remote`: a loader whose batches are made by Ray actors, on nodes that have cores to spare.

The room's rule is that of `pipelines.loader`: what a batch holds is a pure function of (settings, source,
seed, step, rank, world). How many actors there are, where they run, and how often they die changes nothing
but the time it takes. Memory is bounded at every stage: `ingest.ahead` batches are asked of an actor, which
makes `data.prefetch` beyond these, and `data.prefetch` wait here.
"""

import queue
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pipelines.bad import BadSamples
from pipelines.batch import Batch
from pipelines.data import Data
from pipelines.loader import Timings, check_shares
from pipelines.source import Source
from raymask.distributed.bootstrap import connected
from raymask.distributed.ingest_actor import Decoder, Share, Work
from raymask.distributed.ingest_line import Closed, Line, give, take
from raymask.distributed.ingest_part import Bad, Joiner, Part
from raymask.distributed.ingest_settings import Ingest
from raymask.distributed.settings import Cluster

START = 180  # seconds that an actor may take to start, beside what the cluster may take to grow


@dataclass(frozen=True)
class _Ready:
    """A batch with what its actors met, or the error that came in its place."""

    batch: Batch | None
    bad: list[Bad]
    error: Exception | None = None


class RemoteLoader:
    """The batches of `pipelines.loader.Loader` with the same arguments, bit for bit.

    ingest: the actors; cluster: where they run, unless this process is in a cluster already
    """

    def __init__(
        self,
        data: Data,
        source: Source,
        *,
        ingest: Ingest,
        cluster: Cluster,
        batch: int,
        seed: int,
        rank: int = 0,
        world: int = 1,
        start: int = 0,
        steps: int,
        pin: bool = False,
        bad_log: Path | None = None,
    ):
        check_shares(len(source), batch=batch, rank=rank, world=world)
        check_actors(ingest, cluster, batch=batch, world=world)
        self._ingest, self._cluster, self._data = ingest, cluster, data
        self._rank, self._world, self._start, self._steps = rank, world, start, steps
        self.bad = BadSamples(source, limit=data.max_bad_fraction, log=bad_log, rank=rank, world=world)
        augment = "cpu" if data.augment == "auto" else data.augment
        remote = data.model_copy(update={"val": None, "threads": ingest.cpus, "augment": augment})
        self._work = Work(remote, str(Path.cwd()), source.fingerprint, batch=batch, seed=seed, steps=steps)
        self._joiner = Joiner(data.crops, most=-(-batch // world), pin=pin)
        self._timings = Timings()
        self._stack = ExitStack()
        self._stop = threading.Event()
        self._lines: list[Line] = []
        self._ready: queue.Queue[_Ready] = queue.Queue(maxsize=data.prefetch)
        self._pump: threading.Thread | None = None

    def __iter__(self) -> Iterator[Batch]:
        """Begins at `start`, ending the iteration before it if there is one."""
        self.close()
        self._stop, self._ready = threading.Event(), queue.Queue(maxsize=self._data.prefetch)
        self._stack = ExitStack()
        self._stack.enter_context(connected(self._cluster))
        _check_cores(self._ingest, self._cluster, world=self._world)
        self._lines = [self._line(number) for number in range(self._ingest.actors)]
        self._pump = threading.Thread(target=self._work_ahead, daemon=True)
        self._pump.start()
        return self._batches()

    def __len__(self) -> int:
        return max(0, self._steps - self._start)

    def __enter__(self) -> "RemoteLoader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def take_timings(self) -> dict[str, float]:
        """As a Loader's, `read`, `decode` and `cut` summed over the threads of the actors. And `pull`, the
        seconds for which actors and network were waited for, `unpack`, those of copies out of the object
        store, `wire`, the bytes of these, and as of now `replaced`, the actors that died and were replaced.
        """
        seconds = self._timings.take()
        named = ("data_wait", "read", "decode", "cut", "pull", "unpack", "wire")
        return {
            **{name: seconds[name] for name in named},
            "queue": self._ready.qsize(),
            "bad": len(self.bad),
            "replaced": sum(line.replaced for line in self._lines),
        }

    def places(self) -> list[tuple[str, int]]:
        """Machine and process of each actor that works now."""
        return [line.places[-1] for line in self._lines if line.places]

    def close(self) -> None:
        """Ends the actors; the batches that were handed out stay valid."""
        self._stop.set()
        if self._pump and self._pump is not threading.current_thread():
            self._pump.join()
        for line in self._lines:
            line.close()
        self._stack.close()

    def _line(self, number: int) -> Line:
        import ray

        share = Share(self._rank, self._world, number, self._ingest.actors)
        # DEFAULT leaves the placement group of a Train worker or a Tune trial, which has no room for actors.
        # OMP_NUM_THREADS: Ray sets it to the number of cores, and every decoding thread would start as many.
        actor = ray.remote(Decoder).options(
            num_cpus=self._ingest.cpus,
            max_restarts=0,
            scheduling_strategy="DEFAULT",
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}},
        )
        work = ray.put(self._work)
        return Line(
            lambda step: actor.remote(work, share, start=step, known=self.bad.causes()),
            start=self._start,
            steps=self._steps,
            ahead=self._ingest.ahead,
            patience=START + self._cluster.wait,
            stop=self._stop,
        )

    def _work_ahead(self) -> None:
        """The pump's thread: joins parts to batches until one has an error."""
        try:
            for _ in range(self._start, self._steps):
                ready = self._joined()
                give(self._ready, ready, self._stop)
                if ready.error is not None:
                    return
        except Closed:
            return
        except Exception as error:  # training must hear of it rather than wait
            give(self._ready, _Ready(None, [], error), self._stop)

    def _joined(self) -> _Ready:
        begun = time.perf_counter()
        parts: list[Part] = [line.take() for line in self._lines]
        pulled = time.perf_counter()
        bad = [one for part in parts for one in part.bad]
        error = next((part.error for part in parts if part.error is not None), None)
        batch = self._joiner.join(parts) if error is None else None
        spent = {"pull": pulled - begun, "unpack": time.perf_counter() - pulled}
        self._timings.add({**spent, "wire": float(sum(part.bytes for part in parts))})
        for part in parts:
            self._timings.add(part.seconds)
        return _Ready(batch, bad, error)

    def _batches(self) -> Iterator[Batch]:
        try:
            for _ in range(self._start, self._steps):
                begun = time.perf_counter()
                ready = take(self._ready, self._stop)
                self._timings.add({"data_wait": time.perf_counter() - begun})
                self._count(ready.bad)
                if ready.error is not None:
                    raise ready.error
                assert ready.batch is not None
                yield ready.batch
        except Closed:
            raise RuntimeError("the loader was closed while a batch was asked of it") from None
        finally:
            self.close()

    def _count(self, bad: list[Bad]) -> None:
        """Takes over what the actors met. Raises ValueError where it is more than allowed."""
        for one in bad:
            try:
                self.bad.add(one.sample, one.cause)
            finally:  # also where the limit ends the run: its user wants to know it
                self.bad.name(one.sample, one.replaced_by)


def check_actors(ingest: Ingest, cluster: Cluster, *, batch: int, world: int) -> None:
    """Raises ValueError where actors would have nothing to do, or processes no cluster in common."""
    if world * ingest.actors > batch:
        raise ValueError(
            f"a global batch of {batch} images has no work for ingest.actors={ingest.actors} of each of "
            f"{world} training processes: set ingest.actors to at most {batch // world}"
        )
    if world > 1 and cluster.address is None and not _is_connected():
        raise ValueError(
            "ingest=remote with several training processes needs one cluster for all of them: set workers=N, "
            "or give cluster.address"
        )


def _check_cores(ingest: Ingest, cluster: Cluster, *, world: int) -> None:
    """Raises ValueError where the actors can never start; a cluster that grows is waited for."""
    import ray

    needed, there = ingest.cores(world), ray.cluster_resources().get("CPU", 0)
    largest = max((node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]), default=0)
    if cluster.wait or (needed <= there and ingest.cpus <= largest):
        return
    raise ValueError(
        f"ingest.actors={ingest.actors} of ingest.cpus={ingest.cpus} for each of {world} training processes "
        f"take {needed} CPU cores, but the cluster has {there:g}, at most {largest:g} on one node: lower "
        "them, add nodes, or set cluster.wait to the seconds that an autoscaler may take"
    )


def _is_connected() -> bool:
    """Whether this process is in a cluster. It does not import Ray, whose defaults `connected` sets."""
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()
