"""Who decodes: this process, Ray actors that hold our loader (`ingest=remote`), or Ray Data.

python -m tests.benchmarks.ingest PHOTOS [--images 1536] [--rounds 2] [--forms cpu split device]

All make DINO's views of the same files with the same native code, on two cores: two threads, two actors, or
two actors of Ray Data's pool; one consumer copies each batch out of the store. Ray Data gets whole batches by
number, which keeps our sequence and lets it seek. Each run is a process of its own with a cluster of its own,
in turn; the best round counts, of memory the most. A run's first batch is counted from when the cluster is
up and nothing else is, and its CPU time to start up to there; rates are of its last three quarters.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from pipelines.batch import Batch
from pipelines.crops import MultiCrop
from pipelines.data import Data, open_train_and_val
from pipelines.loader import Loader
from tests.benchmarks._machine import machine
from tests.benchmarks._processes import Peak, cpu_seconds

FORMS = {"cpu": "finished crops, float32", "split": "crops, uint8", "device": "pictures, YUV planes"}
BATCH, CORES = 32, 2
NAMES = {"local": "local threads", "actors": "actors with our loader", "raydata": "Ray Data streaming_split"}


@dataclass
class Run:
    """One pass. rate: images/s; first: seconds to the first batch; wire: bytes an image through the store

    start: CPU seconds to the first batch; cpu: those of an image; memory: bytes; all of them of every process
    own: CPU seconds an image of the process that takes the batches
    """

    rate: float
    first: float
    wire: float
    start: float
    cpu: float
    own: float
    signatures: list[int]
    memory: float = 0


def settings(path: str, form: str) -> Data:
    return Data(train=path, crops=MultiCrop(), threads=CORES, augment=form)


def local(data: Data, steps: int) -> Iterator[tuple[int, int]]:
    """Signature and bytes over the wire of each batch."""
    with Loader(data, open_train_and_val(data)[0], batch=BATCH, seed=0, steps=steps) as loader:
        for batch in loader:
            yield batch.signature, 0


def actors(data: Data, steps: int) -> Iterator[tuple[int, int]]:
    from raymask.distributed.ingest import RemoteLoader
    from raymask.distributed.ingest_settings import Ingest
    from raymask.distributed.settings import Cluster

    ingest, source = Ingest(kind="remote", actors=CORES, cpus=1), open_train_and_val(data)[0]
    how = {"batch": BATCH, "seed": 0, "steps": steps, "ingest": ingest, "cluster": Cluster()}
    with RemoteLoader(data, source, **how) as loader:
        for batch in loader:
            yield batch.signature, sum(tensor.nbytes for tensor in batch.tensors())


class Maker:
    """The batch of a step, as one row of a table: what Ray Data's actors do."""

    def __init__(self, data: Data):
        self.loader = Loader(
            data.model_copy(update={"threads": 0}), open_train_and_val(data)[0], batch=BATCH, seed=0, steps=1
        )

    def __call__(self, table: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        step = int(table["id"][0])
        self.loader._start, self.loader._steps = (
            step,
            step + 1,
        )  # its memory and order are kept from step to step
        batch = next(iter(self.loader))
        row = {f"tensor{i}": tensor.numpy()[None] for i, tensor in enumerate(tensors(batch))}
        return {**row, "signature": np.array([batch.signature], np.uint64)}


def tensors(batch: Batch) -> list:
    """Everything of a batch in one order."""
    return batch.tensors()


def raydata(data: Data, steps: int) -> Iterator[tuple[int, int]]:
    import ray.data

    ray.data.DataContext.get_current().enable_progress_bars = False
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    table = ray.data.range(steps, override_num_blocks=steps)
    made = table.map_batches(
        Maker,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=CORES),
        num_cpus=1,
        fn_constructor_args=(data,),
        zero_copy_batch=True,
    )
    (share,) = made.streaming_split(1, equal=False)
    for row in share.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=data.prefetch):
        copied = [np.copy(array) for name, array in row.items() if name != "signature"]
        yield int(row["signature"][0]), sum(array.nbytes for array in copied)


WAYS: dict[str, Callable[[Data, int], Iterator[tuple[int, int]]]] = {
    "local": local,
    "actors": actors,
    "raydata": raydata,
}


def one(way: str, form: str, path: str, images: int) -> Run:
    """A run in this process, after a warm-up of what is compiled at first use."""
    data, steps = settings(path, form), images // BATCH
    list(local(data, 1))
    if way != "local":
        from raymask.distributed.bootstrap import prepare_environment

        prepare_environment(local=True)
        import ray

        # One core more than is decoded with: Ray Data's own tasks need a place.
        ray.init(num_cpus=CORES + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    marks, wire, signatures = [_now()], 0, []
    for step, (signature, moved) in enumerate(WAYS[way](data, steps)):
        wire += moved
        signatures.append(signature)
        if step in (0, steps // 4, steps - 1):
            marks.append(_now())
    begun, first, quarter, last = marks
    rest = (steps - 1 - steps // 4) * BATCH
    return Run(
        rate=rest / (last[0] - quarter[0]),
        first=first[0] - begun[0],
        wire=wire / images,
        start=first[1] - begun[1],
        cpu=(last[1] - quarter[1]) / rest,
        own=(last[2] - quarter[2]) / rest,
        signatures=signatures,
    )


def _now() -> tuple[float, float, float]:
    """Seconds of the clock, of CPU in all processes, of CPU in this one."""
    return time.perf_counter(), cpu_seconds(os.getpid()), time.process_time()


def in_a_process(way: str, form: str, path: str, images: int) -> Run:
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.ingest",
        path,
        "--one",
        way,
        form,
        "--images",
        str(images),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = Peak(process.pid)
    out, said = process.communicate()
    memory = peak.stop()
    if process.returncode:
        raise SystemExit(said)
    return Run(**{**json.loads(out.splitlines()[-1]), "memory": memory})


def best(runs: list[Run]) -> Run:
    return Run(
        rate=max(run.rate for run in runs),
        first=min(run.first for run in runs),
        wire=runs[0].wire,
        start=min(run.start for run in runs),
        cpu=min(run.cpu for run in runs),
        own=min(run.own for run in runs),
        signatures=runs[0].signatures,
        memory=max(run.memory for run in runs),
    )


def table(found: dict[tuple[str, str], Run]) -> str:
    head = ["what is made", "by", "images/s", "CPU ms an image", "of which here", "first batch"]
    rows = [[*head, "CPU s to start", "kB an image on the wire", "peak memory", "our sequence"]]
    rows.append(["---"] * len(rows[0]))
    for (form, way), run in found.items():
        kept = run.signatures == found[form, "local"].signatures
        cells = [f"{run.rate:.0f}", f"{1e3 * run.cpu:.2f}", f"{1e3 * run.own:.2f}"]
        cells += [f"{run.first:.1f} s", f"{run.start:.1f}"]
        cells += [f"{run.wire / 1e3:.0f}", f"{run.memory / 1e9:.2f} GB", "yes" if kept else "NO"]
        rows.append([FORMS[form], NAMES[way], *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos")
    parser.add_argument("--images", type=int, default=1536)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--forms", nargs="+", choices=FORMS, default=list(FORMS))
    parser.add_argument("--one", nargs=2, metavar=("WAY", "FORM"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(asdict(one(*asked.one, asked.photos, asked.images))))
        return
    runs: dict[tuple[str, str], list[Run]] = {}
    for _ in range(asked.rounds):
        for form in asked.forms:
            for way in WAYS:
                runs.setdefault((form, way), []).append(in_a_process(way, form, asked.photos, asked.images))
    source = open_train_and_val(settings(asked.photos, "cpu"))[0]
    print(f"{machine()}, {asked.images} photos of {source.stored_bytes / len(source) / 1e3:.0f} kB,", end=" ")
    print(f"batches of {BATCH}, load {os.getloadavg()[0]:.1f}\n")
    print(table({name: best(found) for name, found in runs.items()}))


if __name__ == "__main__":
    main()
