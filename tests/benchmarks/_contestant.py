"""A loader in a process of its own, which passes over images when it is told to.

Loaders set threads, pools and interpreters up for the whole process; here none of them meets another's, and
each has its own peak of memory. Between passes a process waits and costs nothing, so that all can take turns.
"""

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass

import torch

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.loader import Data, Loader
from pipelines.source import Source, open_source
from tests.benchmarks._processes import started
from tests.benchmarks._rivals import EVERYONE
from tests.benchmarks._rivals.rival import Run

MODES = ("cpu", "split", "device")
OURS = {f"this loader, {mode}": mode for mode in MODES}
BATCH = 32
SMALL = MultiCrop(global_crops=Crops(size=28), local_crops=LocalCrops(count=4, size=12))


@dataclass(frozen=True)
class Pass:
    """images a second of CPU time and of wall time; bytes that go to the device for an image; and the most
    memory that the process, or one of its workers, has held, in bytes."""

    core: float
    wall: float
    moved: float
    peak: int


class Contestant:
    """The process of a loader by name. To be closed."""

    def __init__(self, data: str, name: str, *, threads: int, small: bool):
        command = [sys.executable, "-m", "tests.benchmarks._contestant", data, name, str(threads)]
        # libraries with pools of their own get what everyone gets
        env = os.environ | {"RAYON_NUM_THREADS": str(max(1, threads)), "NO_ALBUMENTATIONS_UPDATE": "1"}
        self.name = name
        self._process = subprocess.Popen(
            [*command, "--small"] if small else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=env,
        )

    def over(self, images: int) -> Pass:
        """A pass over that many images."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(f"{images}\n")
            self._process.stdin.flush()
            said = self._process.stdout.readline()
            while said and not said.startswith("pass "):  # what a library prints
                said = self._process.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            raise SystemExit(f"{self.name} ended with {self._process.wait()}: its error is above")
        return Pass(**json.loads(said.removeprefix("pass ")))

    def close(self) -> None:
        self._process.communicate()


def seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + ended.ru_utime + ended.ru_stime


def spent() -> float:
    """CPU seconds of this process and of all that it started."""
    return seconds() + started(os.getpid())


def peak() -> int:
    """Bytes that this process, or the largest of its children that have ended, has held."""
    both = (resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return max(both) * 1024


def ours(source: Source, crops: MultiCrop, mode: str, threads: int) -> Run:
    """A pass of this loader."""

    def run(images: int) -> int:
        data = Data(crops=crops, threads=threads, augment=mode)
        moved = 0
        with Loader(data, source, batch=BATCH, seed=0, steps=images // BATCH) as loader:
            for batch in loader:
                moved += sum(tensor.nbytes for tensor in batch.tensors())
        return moved

    return run


def _built(source: Source, crops: MultiCrop, name: str, threads: int) -> Run:
    if name in OURS:
        return ours(source, crops, OURS[name], threads)
    (rival,) = (rival for rival in EVERYONE if rival.name == name)
    return rival.build(source, crops, BATCH, threads)


def main(data: str, name: str, threads: int, *, small: bool) -> None:
    torch.set_num_threads(1)
    crops = SMALL if small else MultiCrop()
    levels = sum(3 * group.count * group.height * group.width for group in crops.groups.values())
    run = _built(open_source(data), crops, name, threads)
    for line in sys.stdin:
        images = int(line)
        wall, cpu = time.perf_counter(), spent()
        moved = run(images)
        wall, cpu = time.perf_counter() - wall, spent() - cpu
        # a loader that leaves views out is no contestant
        assert name in OURS or moved in (images * levels, 4 * images * levels), f"{moved} bytes"
        found = {"core": images / cpu, "wall": images / wall, "moved": moved / images, "peak": peak()}
        print("pass", json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:3], int(sys.argv[3]), small="--small" in sys.argv)
