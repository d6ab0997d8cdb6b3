"""Where crops are made: `data.augment=auto` becomes one mode for the whole run, by a measurement."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING

import torch

from pipelines.finish import Finisher
from pipelines.jpeg_library import find_library
from pipelines.rows import Mode
from pipelines.source import Source
from raymask.device import autocast_dtype, moved, pins_memory, synchronise
from raymask.feed import open_feed
from raymask.pace import Spans
from raymask.world import World, sum_across

if TYPE_CHECKING:
    from raymask.config import Config

MODES: tuple[Mode, ...] = ("cpu", "split", "device")  # by how much they leave to the device
BATCHES, WARM, IMAGES = 6, 2, 64
_NO_GPU = "data.augment: cpu, because there is no GPU that could do a part of it"
CLOSE = 0.9  # of the best rate: near enough for a mode that leaves less to the device


def with_augment(
    config: Config, source: Source, *, world: World, device: torch.device
) -> tuple[Config, str | None]:
    """`config` with the mode that auto comes to, and a sentence on why; as it is where a mode is given."""
    if config.data.augment != "auto":
        return config, _slow_decoding()
    if any(crops.randaugment is not None for crops in config.data.crops.groups.values()):
        return _chosen(config, "cpu"), "data.augment: cpu, because RandAugment is done on the CPU only"
    if device.type != "cuda":
        return _chosen(config, "cpu"), _slow_decoding() or _NO_GPU
    rates = {mode: _rate(config, mode, source, world=world, device=device) for mode in MODES}
    mode = choose(rates)
    measured = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    return _chosen(config, mode), f"data.augment: {mode}, by images/s measured on this machine: {measured}"


def choose(rates: dict[Mode, float]) -> Mode:
    """The mode that leaves least to the device among those that are about as fast as the fastest."""
    best = max(rates.values())
    return next(mode for mode in MODES if rates[mode] >= CLOSE * best)


def finisher(config: Config, dtype: torch.dtype | None) -> Finisher:
    """The device's share for this run: products in `dtype`, or float32 for None."""
    return Finisher(config.data.crops, hue=config.data.hue, dtype=dtype or torch.float32)


def _chosen(config: Config, mode: Mode) -> Config:
    return config.model_copy(update={"data": config.data.model_copy(update={"augment": mode})})


def _slow_decoding() -> str | None:
    if find_library() is not None:
        return None
    return (
        "JPEGs are decoded by Pillow alone, at about half the speed, because no libjpeg of a known kind was "
        "found: Pillow's own wheel brings one, and so does the system package libjpeg-turbo"
    )


def _rate(config: Config, mode: Mode, source: Source, *, world: World, device: torch.device) -> float:
    """Images a second of all ranks through loader and device, after a warm-up; the same number on each."""
    batch = min(IMAGES, len(source))
    chosen = _chosen(config, mode)
    finish = finisher(config, autocast_dtype(device, config.train.precision))
    pin = pins_memory(device)
    with closing(open_feed(chosen, source, batch=batch, world=World(), steps=BATCHES, pin=pin)) as loader:
        begun = 0.0
        for number, _ in enumerate(moved(loader, device, finish, Spans(device))):
            if number == WARM:
                synchronise(device)
                begun = time.perf_counter()
        synchronise(device)
    rate = (BATCHES - WARM - 1) * batch / (time.perf_counter() - begun)
    return float(sum_across(torch.tensor(rate, dtype=torch.float64, device=device)))
