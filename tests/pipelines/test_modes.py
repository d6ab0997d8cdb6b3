"""cpu, split and device: the same crops wherever they are made, in the same order, for any threads."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.crops import Crops, LocalCrops, MultiCrop, RandAugment
from pipelines.device_crops import LARGEST_SIDE
from pipelines.draws import VIEW
from pipelines.finish import Finisher
from pipelines.loader import Data, Loader
from pipelines.native import native
from pipelines.planes import of_pixels
from pipelines.raw import FIELDS, numbers_of
from pipelines.render import normalisation
from pipelines.rows import row_maker
from tests.pipelines.pictures import Memory, decibels, encoded, memory, picture

MODES = ("cpu", "split", "device")
PLAIN = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0}
SMALL = MultiCrop(global_crops=Crops(size=(40, 32)), local_crops=LocalCrops(count=3, size=16))
UNTOUCHED = MultiCrop(global_crops=Crops(size=48, **PLAIN), local_crops=LocalCrops(count=3, size=20, **PLAIN))


def batches(source: Memory, mode: str, crops: MultiCrop = SMALL, **how: object) -> list:
    data = Data.model_validate({"crops": crops, "threads": how.pop("threads", 0), "augment": mode})
    finish = Finisher(crops, **how)
    return [finish(batch) for batch in Loader(data, source, batch=5, seed=3, steps=3)]


def levels(crop: torch.Tensor, crops: MultiCrop) -> np.ndarray:
    factor, offset = normalisation(crops)[:, :, None, None]
    return np.rint((crop.numpy() - offset) / factor)


def likeness(mode: str, crops: MultiCrop, source: Memory, **how: object) -> list[float]:
    """Decibels of every view between a mode and the CPU's."""
    found = []
    for one, other in zip(batches(source, mode, crops, **how), batches(source, "cpu", crops), strict=True):
        assert one.signature == other.signature and torch.equal(one.samples, other.samples)
        for name, group in one.crops.items():
            for got, wanted in zip(group.flatten(0, 1), other.crops[name].flatten(0, 1), strict=True):
                found.append(decibels(levels(got, crops), levels(wanted, crops)))
    return found


def smooth(count: int) -> Memory:
    """JPEGs whose colours change slowly, as a photograph's do."""
    return Memory([encoded(picture(i, 90, 120)) for i in range(count)])


@pytest.mark.parametrize("mode", ["split", "device"])
def test_crops_are_those_of_the_cpu_mode_within_45_decibels(mode):
    assert min(likeness(mode, UNTOUCHED, smooth(23))) > 45


def test_in_bfloat16_too():
    assert min(likeness("device", UNTOUCHED, smooth(23), dtype=torch.bfloat16)) > 45


def test_split_and_cpu_cut_the_very_same_crops():
    assert min(likeness("split", UNTOUCHED, smooth(23))) == float("inf")


@pytest.mark.parametrize("mode", ["split", "device"])
def test_the_photometric_recipe_is_the_same(mode):
    found = np.array(likeness(mode, SMALL, smooth(23)))
    assert np.median(found) > 45 and np.mean(found > 35) > 0.95


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("threads", [1, 3])
def test_any_number_of_threads_gives_the_same_crops_bit_for_bit(mode, threads):
    source = memory(23)
    for one, other in zip(batches(source, mode), batches(source, mode, threads=threads), strict=True):
        assert one.signature == other.signature
        assert all(torch.equal(one.crops[name], other.crops[name]) for name in one.crops)


@pytest.mark.parametrize("size", [(64, 64), (24, 40)])
@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("box", [(0, 0, 150, 200), (31, 52, 80, 77), (100, 3, 49, 64)])
def test_the_matrices_cut_what_pillow_cuts_within_45_decibels(size, flip, box):
    crops = MultiCrop(global_crops=Crops(count=1, size=size, **PLAIN), local_crops=LocalCrops(count=0))
    data = encoded(picture(1, 150, 200))
    settings = Data(crops=crops, threads=0, augment="device")
    batch = next(iter(Loader(settings, Memory([data] * 8), batch=1, seed=0, steps=1)))
    for name, value in zip(("top", "left", "height", "width", "flip"), (*box, flip)):
        batch.raw.views[..., FIELDS.index(name)] = value
    got = levels(Finisher(crops)(batch).crops["global"][0, 0], crops).transpose(1, 2, 0)
    top, left, height, width = box
    image = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
    wanted = image.resize(size[::-1], Image.Resampling.BICUBIC)
    wanted = wanted.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else wanted
    assert decibels(got, np.asarray(wanted)) > 45


def test_the_linear_hue_is_another_choice_that_leaves_brightness_alone():
    source, shifted = (
        smooth(5),
        {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.3, "jitter": 1.0},
    )
    group = Crops(size=32, **{**PLAIN, **shifted})
    crops = MultiCrop(global_crops=group, local_crops=LocalCrops(count=0))
    exact, linear = (batches(source, "split", crops, hue=hue)[0].crops["global"] for hue in ("hsv", "linear"))
    assert not torch.equal(exact, linear)
    plain = MultiCrop(global_crops=Crops(size=32, **PLAIN), local_crops=LocalCrops(count=0))
    luma = torch.tensor([0.299, 0.587, 0.114]) * torch.tensor(crops.std)
    before = batches(source, "split", plain)[0].crops["global"]
    change = ((linear - before) * luma[:, None, None]).sum(2) * 255
    assert change.abs().median() < 2


def test_pictures_larger_than_the_first_guess_find_room_that_never_shrinks():
    crops = MultiCrop(global_crops=Crops(count=1, size=16, **PLAIN), local_crops=LocalCrops(count=0))
    maker = row_maker("device", crops, most=3, pin=False)
    early, late = maker.take(3), maker.take(3)  # both in memory of the first guess
    for rows, side in ((early, 1200), (late, 800), (maker.take(3), 1200)):
        for row in (2, 0, 1):
            pixels = of_pixels(np.full((side, side, 3), 50 * (row + 1), np.uint8))
            rows.write(row, pixels, np.uint64(row), np.uint64(row))
        _, raw = rows.result()
        for row in range(3):
            start = int(raw.starts[row])
            assert (raw.pixels[start : start + side**2] == 50 * (row + 1)).all()
    assert len(maker.block().arrays["pixels"]) > 3 * 1.5 * 1200**2


ODD = [picture(i, *sides) for i, sides in enumerate([(60, 80), (1, 9000), (9000, 1), (2000, 3000), (80, 60)])]


def test_a_large_or_long_picture_among_small_ones_costs_the_device_neither_memory_nor_likeness():
    source = Memory([encoded(pixels) for pixels in ODD])
    data = Data(crops=UNTOUCHED, threads=2, augment="device")
    batch = next(iter(Loader(data, source, batch=5, seed=3, steps=1)))
    assert batch.raw.largest == (80, 80)
    assert sorted(batch.samples[batch.raw.large].tolist()) == [1, 2, 3]
    with Largest() as seen:
        Finisher(UNTOUCHED)(batch)
    assert 0 < seen.bytes < 8e6  # one canvas for all would take 5 x 9000 x 9000 indexes of eight bytes
    assert min(likeness("device", UNTOUCHED, source)) > 45


class Largest(TorchDispatchMode):
    """Sees the bytes of the largest tensor that is made."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.bytes = max(self.bytes, found.untyped_storage().nbytes())
        return found


def test_only_what_is_larger_than_a_canvas_may_be_is_cut_before_the_device():
    source = Memory([encoded(picture(1, LARGEST_SIDE, 40)), encoded(picture(2, 40, LARGEST_SIDE + 1))])
    data = Data(crops=UNTOUCHED, threads=0, augment="device")
    batch = next(iter(Loader(data, source, batch=2, seed=3, steps=1)))
    assert batch.samples[batch.raw.large].tolist() == [1] and batch.raw.largest == (LARGEST_SIDE, 40)


@pytest.mark.parametrize("mode", ["split", "device"])
def test_randaugment_is_left_to_the_cpu(mode):
    crops = MultiCrop(global_crops=Crops(randaugment=RandAugment()))
    with pytest.raises(ValueError, match=f"data.augment={mode} cannot do RandAugment"):
        Loader(Data(crops=crops, augment=mode), memory(9), batch=3, seed=0, steps=1)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["split", "device"])
def test_compiled_crops_are_the_same(mode):
    assert min(likeness(mode, UNTOUCHED, smooth(9), compiled=True)) > 45


def test_the_drawn_numbers_reach_the_device_unchanged():
    views = np.zeros(4, VIEW)
    native().draw(np.uint64(1), 80, 90, row_maker("cpu", SMALL, most=1, pin=False).rules[:4], views)
    table = numbers_of(views)
    assert all((table[:, i].astype(views[name].dtype) == views[name]).all() for i, name in enumerate(FIELDS))
