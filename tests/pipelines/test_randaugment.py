"""RandAugment: operations held to Pillow's, strengths to timm's, draws that depend on the key alone."""

import numpy as np
import pytest
from numba import njit
from PIL import Image, ImageEnhance, ImageOps
from timm.data import auto_augment

from pipelines import randaugment as kinds
from pipelines.crops import Crops, LocalCrops, MultiCrop, RandAugment
from pipelines.draws import VIEW, rules
from pipelines.native import native
from pipelines.planes import of_pixels
from pipelines.randaugment import OPERATION, strength
from pipelines.render import normalisation
from pipelines.streams import fold
from tests.pipelines.pictures import picture

draw_operations = njit(kinds.draw_operations)

FILL = (124, 116, 104)
NAMES = auto_augment.rand_augment_choices("", increasing=True)
STORED = 2677637004966159528  # what runs of before RandAugment hold for this picture and key
AUGMENTED = Crops(count=1, size=24, jitter=0, grey=0, blur=0.0, solarise=0.0, randaugment=RandAugment())


def by_pillow(image: Image.Image, kind: int, value: float, *, cubic: bool) -> Image.Image:
    """One operation of timm, done by timm's own function."""
    if kind == kinds.POSTERISE and value == 0:
        return Image.new("RGB", image.size)  # what Pillow gave until version 10; it refuses now
    resample = Image.Resampling.BICUBIC if cubic else Image.Resampling.BILINEAR
    argument = int(value) if kind in (kinds.POSTERISE, kinds.SOLARISE, kinds.SOLARISE_ADD) else value
    arguments = () if kind <= kinds.INVERT else (argument,)
    return auto_augment.NAME_TO_OP[NAMES[kind]](image, *arguments, fillcolor=FILL, resample=resample)


def augmented(pixels: np.ndarray, kind: int, value: float, *, cubic: bool) -> np.ndarray:
    """The same by ours, uint8 [h, w, 3]."""
    operation, levels = np.zeros((), OPERATION), pixels.transpose(2, 0, 1).copy()
    operation["kind"], operation["value"], operation["cubic"] = kind, value, cubic
    native().augment(levels, operation[()], np.array(FILL, np.uint8))
    return levels.transpose(1, 2, 0)


@pytest.mark.parametrize("kind", range(kinds.KINDS), ids=NAMES)
def test_every_operation_is_pillows(kind):
    off = []
    for seed, size in enumerate([(60, 70), (33, 20), (7, 5), (2, 3), (1, 1)]):
        pixels = picture(seed, *size)
        for magnitude, sign in ((10, 1), (9.3, -1), (8, 1), (5, -1), (0, 1)):
            for cubic in (False, True):
                value = float(np.float32(strength(kind, magnitude, sign)))
                wanted = np.asarray(by_pillow(Image.fromarray(pixels), kind, value, cubic=cubic)).astype(int)
                off.append(np.abs(augmented(pixels, kind, value, cubic=cubic) - wanted).ravel())
    # a turned place is a sum of products; here and there its last digit decides how a level is cut off
    allowed = 1 if kind == kinds.ROTATE else 0
    assert np.concatenate(off).max() <= allowed
    assert np.concatenate(off).mean() < 1e-4


def test_a_level_picture_and_one_of_two_levels_are_stretched_and_equalised_as_by_pillow():
    for pixels in (
        np.full((20, 30, 3), 77, np.uint8),
        np.repeat(np.eye(40, dtype=np.uint8)[:, :, None], 3, 2) * 9,
    ):
        image = Image.fromarray(pixels)
        for kind, wanted in (
            (kinds.AUTOCONTRAST, ImageOps.autocontrast),
            (kinds.EQUALISE, ImageOps.equalize),
        ):
            assert (augmented(pixels, kind, 0.0, cubic=False) == np.asarray(wanted(image))).all()


@pytest.mark.parametrize("factor", [0.1, 0.19, 1.0, 1.81, 1.9])
def test_sharpening_is_pillows_exactly(factor):
    pixels = picture(9, 80, 90)
    wanted = ImageEnhance.Sharpness(Image.fromarray(pixels)).enhance(float(np.float32(factor)))
    assert (augmented(pixels, kinds.SHARPNESS, factor, cubic=False) == np.asarray(wanted)).all()


@pytest.mark.parametrize("kind", range(kinds.KINDS), ids=NAMES)
def test_strengths_are_timms(kind, monkeypatch):
    level_to_argument = auto_augment.LEVEL_TO_ARG[NAMES[kind]]
    for magnitude in np.linspace(0, 10, 41):
        for chance, sign in ((0.0, 1.0), (1.0, -1.0)):
            monkeypatch.setattr(auto_augment.random, "random", lambda chance=chance: chance)
            wanted = (0.0,) if level_to_argument is None else level_to_argument(magnitude, {})
            assert strength(kind, magnitude, sign) == pytest.approx(wanted[0], abs=1e-12)


def drawn(settings: RandAugment, *, count: int = 6000) -> np.ndarray:
    """OPERATION [count, views, operations] of as many samples."""
    table = rules(AUGMENTED.model_copy(update={"count": 2, "randaugment": settings}))
    return np.stack(
        [draw_operations(np.uint64(fold(np.uint64(5), np.uint64(i))), table) for i in range(count)]
    )


def test_operations_happen_as_often_as_told_and_are_of_every_kind_equally():
    operations = drawn(RandAugment())
    happened = operations["kind"] != kinds.NOTHING
    assert abs(happened.mean() - 0.5) < 0.02
    shares = np.bincount(operations["kind"][happened], minlength=kinds.KINDS) / happened.sum()
    assert np.abs(shares - 1 / kinds.KINDS).max() < 0.01
    assert (operations["value"][~happened] == 0).all() and operations["cubic"][happened].all()
    assert abs(drawn(RandAugment(probability=1.0, interpolation="random"))["cubic"].mean() - 0.5) < 0.02


def test_magnitudes_are_normal_and_held_at_ten():
    operations = drawn(RandAugment(probability=1.0))
    slopes = operations["value"][operations["kind"] == kinds.SHEAR_X]
    magnitudes = np.abs(slopes) / 0.03
    quantiles = np.quantile(magnitudes, (0.1, 0.5, 0.9))
    assert np.abs(quantiles - (8.36, 9.0, 9.64)).max() < 0.07
    assert 0.01 < (magnitudes > 9.999).mean() < 0.04 and magnitudes.max() < 10.001
    assert abs((slopes < 0).mean() - 0.5) < 0.05
    still = drawn(RandAugment(probability=1.0, spread=0.0), count=200)
    assert set(still["value"][still["kind"] == kinds.POSTERISE]) == {1.0}


def test_views_and_their_operations_are_drawn_apart_and_only_from_the_key():
    first, again = (
        drawn(RandAugment(probability=1.0), count=300),
        drawn(RandAugment(probability=1.0), count=300),
    )
    assert (first == again).all()
    kind = first["kind"]
    assert abs((kind[:, 0] == kind[:, 1]).mean() - 1 / 15) < 0.04
    assert abs((kind[..., 0] == kind[..., 1]).mean() - 1 / 15) < 0.04


def cut(crops: MultiCrop, key: int, *, entry: str) -> tuple[int, np.ndarray, np.ndarray]:
    """Signature, drawn views and global crops of a picture."""
    table = np.concatenate([rules(crops.global_crops), rules(crops.local_crops)])
    views, none = np.zeros(len(table), VIEW), np.empty((0, 1, 3, 1, 1), np.float32)
    out = np.empty((crops.global_crops.count, 1, 3, 24, 24), np.float32)
    arguments = (np.uint64(key), np.uint64(3), table, normalisation(crops), 0, views, out, none)
    stored = of_pixels(picture(1, 50, 60))
    return getattr(native(), entry)(stored.data, stored.frame, *arguments), views, out


def test_a_view_is_the_crop_then_its_operations_then_the_mean_and_spread():
    crops = MultiCrop(global_crops=AUGMENTED, local_crops=LocalCrops(count=0))
    table, happened = rules(AUGMENTED), 0
    for key in range(40):
        _, views, out = cut(crops, key, entry="cut_augmented")
        levels, plain = np.empty((3, 24, 24), np.uint8), np.empty((3, 24, 24), np.float32)
        native().view(picture(1, 50, 60), views[0], normalisation(crops), levels, plain)
        image = Image.fromarray(levels.transpose(1, 2, 0).copy())
        for operation in draw_operations(np.uint64(key), table)[0]:
            if operation["kind"] != kinds.NOTHING:
                given = int(operation["kind"]), float(operation["value"])
                image, happened = by_pillow(image, *given, cubic=bool(operation["cubic"])), happened + 1
        wanted = (np.asarray(image) / 255 - np.array(crops.mean)) / np.array(crops.std)
        assert np.abs(out[0, 0].transpose(1, 2, 0) - wanted).max() < 0.02  # a level is 0.017
    assert happened > 20


def test_the_signature_covers_the_operations_and_is_as_it_was_without_them():
    plain = MultiCrop(global_crops=AUGMENTED.model_copy(update={"randaugment": None}))
    plain = plain.model_copy(update={"local_crops": LocalCrops(count=0)})
    signed, _, pixels = cut(plain, 7, entry="cut")
    same, _, also = cut(plain, 7, entry="cut_augmented")
    assert signed == same == STORED and (pixels == also).all()
    weak, strong = (
        MultiCrop(
            global_crops=AUGMENTED.model_copy(
                update={"randaugment": RandAugment(magnitude=m, probability=1.0)}
            ),
            local_crops=LocalCrops(count=0),
        )
        for m in (3, 9)
    )
    assert (
        len({signed, cut(weak, 7, entry="cut_augmented")[0], cut(strong, 7, entry="cut_augmented")[0]}) == 3
    )
