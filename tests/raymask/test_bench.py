"""`raymask bench`: a table of a user's own data, and what to change, from what was measured."""

from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.data import Data
from raymask.bench import Bench, Rate, _modes, advice, bench
from raymask.pace import DEVICE, LOADER

STAGES = dict(zip((*LOADER, *DEVICE), (0.1, 2.0, 1.0, 0.1, 0.5), strict=True))
RATE = Rate("cpu", 2, 300.0, 0.9, STAGES, 2e6)


def said(rate: Rate, *, cuda: bool = False, side: float | None = None, one: float = 160.0) -> str:
    """The advice where one thread comes to `one` images/s, and `rate` is the fastest."""
    alone = replace(rate, threads=1, images=one, side=side)
    return "\n".join(advice([alone, rate], Data(), cuda=cuda, cores=2))


def slow(stage: str, *, mode: str = "cpu") -> Rate:
    wait = 0.9 if stage in LOADER else 0.0
    return replace(RATE, mode=mode, wait=wait, stages={**STAGES, stage: 50.0})


@pytest.mark.parametrize("stage", STAGES)
def test_the_longest_stage_of_the_side_that_is_waited_for_limits(stage: str):
    assert slow(stage).limit == stage
    assert f"limit: {stage}, " in said(slow(stage))


@pytest.mark.parametrize(
    ("rate", "how", "says"),
    [
        (slow("read"), {}, "a faster disk; or more reads at one time: data.threads=4"),
        (slow("decode"), {"side": 1600.0}, "max_side=512: the long side is 1600 pixels, crops have 224"),
        (slow("decode"), {"side": 300.0}, "more cores"),
        (slow("cut"), {"cuda": True}, "data.augment=split or device"),
        (slow("cut"), {}, "fewer or smaller views"),
        (slow("transfer"), {"cuda": True}, "send fewer bytes"),
        (slow("finish", mode="device"), {"cuda": True}, "data.augment=cpu or split"),
        (replace(RATE, images=170.0), {}, "2 threads are 1.1 times as fast as one"),
        (replace(RATE, threads=1), {}, "data.threads=2: this process may use 2 cores"),
    ],
)
def test_what_to_change_fits_what_limits(rate: Rate, how: dict, says: str):
    assert says in said(rate, **how)


def test_threads_that_pay_are_not_complained_of():
    assert "times as fast" not in said(RATE)


def test_modes_are_those_that_the_crops_can_have():
    assert _modes(Data()) == ("cpu", "split", "device") and _modes(Data(augment="split")) == ("split",)
    crops = MultiCrop(global_crops=Crops(randaugment={}))
    assert _modes(Data(crops=crops)) == ("cpu",)


def test_a_data_set_smaller_than_a_batch_is_measured(photos: Path):
    crops = MultiCrop(global_crops=Crops(size=16), local_crops=LocalCrops(count=2, size=8))
    data = Data(train=str(photos), crops=crops, augment="cpu", threads=1)
    lines = list(bench(Bench(data=data, seconds=0.001)))
    row = next(line for line in lines if line.startswith("cpu ")).split()
    assert lines[0].startswith("24 images in ") and "batches of 24" in lines[1]
    assert len(row) == 10 and float(row[2]) > 0 and float(row[5]) > 0
    assert float(row[9]) == pytest.approx(2 * 3 * 4 * (16**2 + 8**2) / 1e6, abs=0.01)
    assert any(line.startswith("limit: ") for line in lines)
