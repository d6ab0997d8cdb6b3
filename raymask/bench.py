"""How fast a user's own data come, in each mode of augmentation: which stage limits, and what to change."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field

from pipelines.batch import Batch
from pipelines.data import Data, available_cores, open_train_and_val
from pipelines.finish import Finisher
from pipelines.loader import Loader
from pipelines.raw import RawPictures
from pipelines.rows import Mode
from pipelines.settings import Settings
from pipelines.source import Source
from raymask.augment import MODES
from raymask.device import autocast_dtype, describe, moved, pick_device, pins_memory, synchronise
from raymask.pace import DEVICE, LOADER, Spans

WARM, FEWEST = 3, 6  # batches before the clock starts (the first compiles), and at least after that
ENDLESS = 1 << 40  # images: more than a measurement comes to
ROOMY = 2.25  # long side of a picture over that of a crop, from which on decoding more is waste

_HEAD = "mode    threads  images/s   wait    read  decode     cut  transfer  finish  MB an image"
_LEGEND = """\
read, decode, cut: ms of a thread an image; transfer, finish: ms of the device an image
wait: share of the time in which no batch was ready; MB: what goes to the device"""


class Bench(Settings):
    """What is measured, and how long.

    data: as in training, with its crops, threads and mode (auto: every mode)
    batch: images of a batch; seconds: how long each measurement takes at least
    """

    data: Data = Data()
    batch: int = Field(default=32, ge=1)
    seconds: float = Field(default=3.0, gt=0)


@dataclass(frozen=True)
class Rate:
    """One measurement. images: a second, through loader and device; wait: share of it without a batch

    stages: milliseconds an image, of a thread (LOADER) or of the device (DEVICE)
    moved: bytes to the device an image; side: mean long side of the pictures, where they arrive whole
    """

    mode: Mode
    threads: int
    images: float
    wait: float
    stages: Mapping[str, float]
    moved: float
    side: float | None = None

    @property
    def limit(self) -> str:
        """The stage to change first: the loader's longest where batches are waited for, else the device's."""
        return max(LOADER if self.wait > 0.5 else DEVICE, key=lambda stage: self.stages[stage])

    def __str__(self) -> str:
        read, decode, cut, transfer, finish = (self.stages[stage] for stage in (*LOADER, *DEVICE))
        return (
            f"{self.mode:7s} {self.threads:7d} {self.images:9.0f} {self.wait:6.0%} {read:7.2f} {decode:7.2f} "
            f"{cut:7.2f} {transfer:9.2f} {finish:7.2f} {self.moved / 1e6:12.2f}"
        )


def bench(asked: Bench) -> Iterator[str]:
    """Lines to print: a table as it is measured, then what limits and what to change. Raises ValueError."""
    source, _ = open_train_and_val(asked.data)
    device, batch = pick_device(), min(asked.batch, len(source))
    size = source.stored_bytes / len(source) / 1e3
    yield f"{len(source):,} images in {len(source.shard_sizes):,} shards, {size:.1f} kB an image"
    yield f"{_views(asked.data)}, batches of {batch}, {describe(device)}\n\n{_HEAD}"
    start, rates = 0, list[Rate]()
    most = asked.data.thread_count
    for mode in _modes(asked.data):
        for threads in sorted({min(1, most), most}):
            data = asked.data.model_copy(update={"augment": mode, "threads": threads})
            # Each begins where the last one ended: what was just read would come from memory.
            rate, start = _measure(data, source, batch, start=start, seconds=asked.seconds, device=device)
            rates.append(rate)
            yield str(rate)
    yield f"{_LEGEND}\n"
    yield from advice(rates, asked.data, cuda=device.type == "cuda", cores=available_cores())


def _modes(data: Data) -> Sequence[Mode]:
    """Every mode that these crops can have, or the one that was asked for."""
    if data.augment != "auto":
        return (data.augment,)
    needs_images = any(crops.randaugment is not None for crops in data.crops.groups.values())
    return ("cpu",) if needs_images else MODES


def _views(data: Data) -> str:
    groups = data.crops.groups.items()
    return " + ".join(f"{crops.count} {name} {crops.height} x {crops.width}" for name, crops in groups)


class _Weighed:
    """Batches that pass through, with their bytes and the sides of their pictures."""

    def __init__(self) -> None:
        self.images, self.bytes, self.sides = 0, 0, 0

    def of(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self.images += len(batch)
            self.bytes += sum(tensor.nbytes for tensor in batch.tensors())
            if isinstance(batch.raw, RawPictures):
                self.sides += int(batch.raw.sides.amax(1).sum())
            yield batch


def _measure(
    data: Data, source: Source, batch: int, *, start: int, seconds: float, device: torch.device
) -> tuple[Rate, int]:
    """The rate from global batch `start` on, and the first batch that was not asked for."""
    finish = Finisher(data.crops, hue=data.hue, dtype=autocast_dtype(device) or torch.float32)
    spans, weighed, begun, number = Spans(device), _Weighed(), 0.0, 0
    steps, pin = ENDLESS // batch, pins_memory(device)
    with Loader(data, source, batch=batch, seed=0, start=start, steps=steps, pin=pin) as loader:
        for number, _ in enumerate(moved(weighed.of(loader), device, finish, spans), 1 - WARM):
            if number == 0:
                synchronise(device)
                loader.take_timings(), spans.take()
                begun = time.perf_counter()
            elif number >= FEWEST and time.perf_counter() - begun >= seconds:
                break
        synchronise(device)
        passed = time.perf_counter() - begun
        timings = loader.take_timings() | spans.take()
    rate = Rate(
        mode="cpu" if data.augment == "auto" else data.augment,
        threads=data.thread_count,
        images=number * batch / passed,
        wait=timings["data_wait"] / passed,
        stages={stage: timings[stage] / (number * batch) * 1e3 for stage in (*LOADER, *DEVICE)},
        moved=weighed.bytes / weighed.images,
        side=weighed.sides / weighed.images if weighed.sides else None,
    )
    return rate, start + WARM + number + data.prefetch + 1


def advice(rates: Sequence[Rate], data: Data, *, cuda: bool, cores: int) -> Iterator[str]:
    """Sentences on the fastest measurement: what it is, what limits it, and what to change."""
    best = max(rates, key=lambda rate: rate.images)
    whole = sum(best.stages[stage] for stage in (LOADER if best.limit in LOADER else DEVICE))
    yield f"fastest: data.augment={best.mode} data.threads={best.threads}, {best.images:.0f} images/s"
    of = "the threads'" if best.limit in LOADER else "the device's"
    yield f"limit: {best.limit}, {best.stages[best.limit] / max(whole, 1e-9):.0%} of {of} time"
    side = next((rate.side for rate in rates if rate.side), None)
    yield from (f"change: {said}" for said in _changes(best, data, side=side, cuda=cuda))
    if best.limit in LOADER and best.threads < cores:
        yield f"change: data.threads={cores}: this process may use {cores} cores"
    one = next((rate for rate in rates if rate.mode == best.mode and rate.threads == 1), best)
    if 1 < best.threads <= cores and best.limit in LOADER and best.images < 0.7 * best.threads * one.images:
        yield (
            f"note: {best.threads} threads are {best.images / one.images:.1f} times as fast as one: other "
            "work on this machine, its disk, or cores that share a unit hold them up"
        )
    yield "a training of fewer images/s does not wait; data_wait in its train.log is what it loses"


def _changes(best: Rate, data: Data, *, side: float | None, cuda: bool) -> Iterator[str]:
    """What would make the stage that limits shorter."""
    crop = max(max(crops.height, crops.width) for crops in data.crops.groups.values())
    room = -(-round(ROOMY * crop) // 64) * 64
    if best.limit in ("read", "decode") and side is not None and side > room:
        yield f"raymask pack DATA OUT max_side={room}: the long side is {side:.0f} pixels, crops have {crop}"
    elif best.limit == "decode":
        yield "more cores; or raymask pack, if images are progressive JPEGs, which are slow to decode"
    if best.limit == "read":
        yield f"a faster disk; or more reads at one time: data.threads={2 * max(1, best.threads)}"
    elif best.limit == "cut" and cuda:
        yield "data.augment=split or device" if best.mode == "cpu" else "data.augment=device, or more cores"
    elif best.limit == "cut":
        yield "fewer or smaller views (data.crops), or more cores"
    elif best.limit == "transfer":
        yield (
            "data.augment=split or device, which send fewer bytes" if best.mode == "cpu" else "smaller views"
        )
    elif best.limit == "finish" and best.mode != "cpu":
        yield "data.augment=cpu or split, which leave less to the device; data.hue=linear is quicker there"
