"""Pixels of a view, held to Pillow's and torchvision's."""

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms import functional

from pipelines.crops import Crops, LocalCrops, MultiCrop
from pipelines.draws import BRIGHTNESS, CONTRAST, HUE, NEVER, SATURATION, VIEW, rules
from pipelines.native import native
from pipelines.planes import of_pixels
from pipelines.render import normalisation
from tests.pipelines.pictures import decibels, picture

CROPS = MultiCrop()


def levels_of(pixels: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One rendered view as uint8 [h, w, 3]."""
    levels, out = np.empty((3, *size), np.uint8), np.empty((3, *size), np.float32)
    native().view(pixels, view[()], normalisation(CROPS), levels, out)
    return levels.transpose(1, 2, 0)


def whole(pixels: np.ndarray, **changes: float) -> np.ndarray:
    """The view that leaves the image as it is, but for `changes`."""
    view = np.zeros((), VIEW)
    view["height"], view["width"] = pixels.shape[:2]
    view["order"], view["threshold"] = -1, NEVER
    for name in ("brightness", "contrast", "saturation"):
        view[name] = 1.0
    for name, value in changes.items():
        view[name] = value
    return view


def order(*parts: int) -> int:
    return sum(part * 4**place for place, part in enumerate(parts))


def columns_first(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Pillow's bicubic resize, columns before rows: what Pillow does by itself up to version 12."""
    narrow = image.resize((size[1], image.height), Image.Resampling.BICUBIC)
    return narrow.resize((size[1], size[0]), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", [(224, 224), (96, 96), (28, 28), (40, 300), (7, 5)])
@pytest.mark.parametrize("box", [(0, 0, 233, 311), (30, 50, 120, 90), (200, 300, 4, 3), (5, 6, 1, 40)])
def test_resizing_is_pillows_without_its_rounding_between_passes(seed, size, box):
    pixels = picture(seed, 233, 311)
    top, left, height, width = box
    got = levels_of(pixels, whole(pixels, top=top, left=left, height=height, width=width), size)
    image = Image.fromarray(pixels[top : top + height, left : left + width])
    wanted = np.asarray(columns_first(image, size))
    assert np.abs(got.astype(int) - wanted).max() <= 5
    assert decibels(got, wanted) >= 52
    # Pillow from 13 on takes rows first where these shrink much more, and rounds other values in between
    direct = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    assert decibels(got, direct) >= 50


@pytest.mark.parametrize("factor", [0.0, 0.6, 0.97, 1.0, 1.03, 1.4, 2.0])
@pytest.mark.parametrize(
    ("name", "adjust"),
    [
        ("brightness", functional.adjust_brightness),
        ("contrast", functional.adjust_contrast),
        ("saturation", functional.adjust_saturation),
    ],
)
def test_blends_are_pillows(name, adjust, factor):
    pixels = picture(1, 60, 70)
    view = whole(pixels, order=order(BRIGHTNESS, CONTRAST, SATURATION, HUE), **{name: factor})
    wanted = np.asarray(adjust(Image.fromarray(pixels), factor))
    # a shift of the hue by nothing is no identity: it goes through HSV and back, for torchvision too
    wanted = np.asarray(functional.adjust_hue(Image.fromarray(wanted), 0.0))
    got = levels_of(pixels, view, (60, 70))
    assert (got == wanted).mean() > 0.99 and decibels(got, wanted) > 54


@pytest.mark.parametrize("shift", [-0.5, -0.1, -0.0019, 0.0, 0.033, 0.1, 0.5])
def test_a_shift_of_the_hue_is_pillows_but_for_odd_pixels(shift):
    pixels = np.concatenate(
        [picture(2, 60, 70), np.full((2, 70, 3), 9, np.uint8), np.zeros((2, 70, 3), np.uint8)]
    )
    pixels.flags.writeable = False
    view = whole(pixels, order=order(HUE, BRIGHTNESS, CONTRAST, SATURATION), hue=shift)
    wanted = np.asarray(functional.adjust_hue(Image.fromarray(pixels), shift))
    got = levels_of(pixels, view, pixels.shape[:2])
    assert (got == wanted).mean() > 0.99 and decibels(got, wanted) > 54


@pytest.mark.parametrize("sigma", [0.1, 0.5, 0.9, 1.0, 1.3, 1.414, 1.415, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("size", [(60, 70), (1, 1)])
def test_a_blur_is_pillows_without_its_rounding_between_boxes(sigma, size):
    pixels = picture(3, *size)
    wanted = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))
    assert decibels(levels_of(pixels, whole(pixels, sigma=sigma), size), wanted) > 47


def test_grey_solarise_and_flip_are_pillows_exactly():
    pixels = picture(4, 50, 60)
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L").convert("RGB"))
    assert (levels_of(pixels, whole(pixels, grey=1), (50, 60)) == grey).all()
    solarised = np.asarray(ImageOps.solarize(image, 128))
    assert (levels_of(pixels, whole(pixels, threshold=128), (50, 60)) == solarised).all()
    assert (levels_of(pixels, whole(pixels, flip=1), (50, 60)) == pixels[:, ::-1]).all()


def by_torchvision(pixels: np.ndarray, view: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The view as the official pipeline makes it from Pillow's operations."""
    box = [int(view[name]) for name in ("top", "left", "height", "width")]
    image = columns_first(functional.crop(Image.fromarray(pixels), *box), size)
    image = functional.hflip(image) if view["flip"] else image
    adjust = {
        BRIGHTNESS: (functional.adjust_brightness, "brightness"),
        CONTRAST: (functional.adjust_contrast, "contrast"),
        SATURATION: (functional.adjust_saturation, "saturation"),
        HUE: (functional.adjust_hue, "hue"),
    }
    for place in range(4 if view["order"] >= 0 else 0):
        function, name = adjust[int(view["order"]) // 4**place % 4]
        image = function(image, float(view[name]))
    image = image.convert("L").convert("RGB") if view["grey"] else image
    image = image.filter(ImageFilter.GaussianBlur(float(view["sigma"]))) if view["sigma"] > 0 else image
    return np.asarray(
        ImageOps.solarize(image, int(view["threshold"])) if view["threshold"] < NEVER else image
    )


@pytest.mark.parametrize("crops", [Crops(size=112), LocalCrops(size=48)])
def test_whole_views_as_they_are_drawn_are_the_official_ones(crops):
    pixels, table = picture(5, 150, 200), rules(crops)
    off, worst = [], float("inf")
    for key in range(20):
        views = np.zeros(crops.count, VIEW)
        native().draw(np.uint64(key), 150, 200, table, views)
        for view in views:
            got = levels_of(pixels, view, (crops.height, crops.width))
            wanted = by_torchvision(pixels, view, (crops.height, crops.width))
            off.append(np.abs(got.astype(int) - wanted).mean())
            worst = min(worst, decibels(got, wanted))
    assert np.mean(off) < 0.6 and worst > 42


def test_views_land_in_their_place_normalised():
    crops = MultiCrop(global_crops=Crops(size=(20, 24)), local_crops=LocalCrops(count=3, size=9))
    table = np.concatenate([rules(crops.global_crops), rules(crops.local_crops)])
    pixels, views = picture(6, 40, 50), np.zeros(5, VIEW)
    stored = of_pixels(pixels)
    outs = np.full((2, 4, 3, 20, 24), 99, np.float32), np.full((3, 4, 3, 9, 9), 99, np.float32)
    native().cut(
        stored.data, stored.frame, np.uint64(1), np.uint64(7), table, normalisation(crops), 2, views, *outs
    )
    for out, group in zip(outs, (views[:2], views[2:])):
        assert (np.delete(out, 2, axis=1) == 99).all()
        for v, view in enumerate(group):
            levels = levels_of(pixels, view, out.shape[3:]) / 255
            wanted = (levels - np.array(crops.mean)) / np.array(crops.std)
            assert np.abs(out[v, 2].transpose(1, 2, 0) - wanted).max() < 1e-5


def test_the_signature_tells_samples_and_views_apart():
    table, out = rules(Crops(size=4)), np.empty((2, 1, 3, 4, 4), np.float32)
    none, stored = np.empty((0, 1, 3, 1, 1), np.float32), of_pixels(picture(0, 30, 30))

    def sign(key: int, sample: int) -> int:
        views = np.zeros(2, VIEW)
        numbers = np.uint64(key), np.uint64(sample)
        return native().cut(
            stored.data, stored.frame, *numbers, table, normalisation(CROPS), 0, views, out, none
        )

    assert sign(1, 2) == sign(1, 2)
    assert len({sign(key, sample) for key in range(5) for sample in range(5)}) == 25
