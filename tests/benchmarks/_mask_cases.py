"""The methods that drop patches, ready to be timed at several mask ratios, each with the cost of its step."""

from collections.abc import Callable
from dataclasses import dataclass

from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.flops import (
    BASE,
    LARGE,
    SMALL,
    TINY,
    Cost,
    Decoding,
    ProjectionHead,
    Views,
    Vit,
    dino_step,
    mae_step,
    maskedkd_step,
)
from raymask.frozen import FrozenNetwork
from raymask.heads import Head
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.keep import Keep
from raymask.methods.mae import DecoderShape, Mae, MaeMethod
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method
from raymask.schedules import Constant
from raymask.vit import Backbone

PATCHES, LOCAL_PATCHES, LOCALS, PROTOTYPES, CLASSES = 196, 36, 8, 65536, 1000
SHAPES = {"tiny": TINY, "small": SMALL, "base": BASE, "large": LARGE}
LARGER = {"tiny": "small", "small": "base", "base": "large"}
ONE_CROP = MultiCrop(global_crops=Crops(count=1, blur=0.0, solarise=0.0), local_crops=LocalCrops(count=0))
ALMOST_NONE = 0.0051  # MAE hides at least one patch: 195 of 196 stay


@dataclass(frozen=True)
class Case:
    """A method at some mask ratios; `build` gives it ready to train, `cost` its step by visible patches."""

    title: str
    crops: dict[str, tuple[int, int]]  # group -> (views, pixels)
    ratios: tuple[float, ...]
    build: Callable[[float], Method]
    cost: Callable[[int], Cost]


def dino(model: str) -> Case:
    """The student's two global views lose patches; the teacher and eight local views do not."""

    def build(ratio: float) -> Method:
        mask = Mask(views="none")
        if ratio:
            mask = Mask(views="student_globals", kind="drop", ratio=Constant(value=ratio))
        return DinoMethod(Dino(head=Head(out_dim=PROTOTYPES)), _backbone(model, 0.1), mask, seed=0)

    def cost(visible: int) -> Cost:
        return dino_step(
            SHAPES[model],
            ProjectionHead(prototypes=PROTOTYPES),
            global_crops=Views(2, PATCHES),
            local_crops=Views(LOCALS, LOCAL_PATCHES),
            visible=visible,
            patches=False,
        )

    title = f"DINO, ViT-{model}/16, 2x224 + {LOCALS}x96, K = {PROTOTYPES}, student globals dropped"
    return Case(title, {"global": (2, 224), "local": (LOCALS, 96)}, (0.0, 0.25, 0.5, 0.75), build, cost)


def maskedkd(model: str) -> Case:
    """The frozen teacher loses patches; it is one size larger than the student."""
    student, teacher = _classifying(SHAPES[model]), _classifying(SHAPES[LARGER[model]])

    def build(ratio: float) -> Method:
        count = round(PATCHES * (1 - ratio))
        settings = MaskedKD(
            classes=CLASSES,
            teacher=FrozenNetwork(name=f"vit_{LARGER[model]}_patch16_224"),
            keep=Keep(count=None if count == PATCHES else Constant(value=count)),
        )
        return MaskedKDMethod(settings, _backbone(model, 0.1), Mask(views="none"), ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        return maskedkd_step(student, teacher, patches=PATCHES, kept=visible)

    title = f"MaskedKD, student ViT-{model}/16, teacher ViT-{LARGER[model]}/16 dropped"
    return Case(title, {"global": (1, 224)}, (0.0, 52 / 196, 0.5, 0.75), build, cost)


def mae(model: str) -> Case:
    """The encoder loses patches; the decoder sees them all."""

    def build(ratio: float) -> Method:
        mask = Mask(strategy=Disjoint(views=1, unit=1), kind="drop", ratio=Constant(value=ratio))
        return MaeMethod(Mae(), _backbone(model, 0.0), mask, ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        return mae_step(SHAPES[model], Decoding(), patches=PATCHES, visible=visible)

    title = f"MAE, ViT-{model}/16, decoder 512 x 8, encoder dropped"
    return Case(title, {"global": (1, 224)}, (ALMOST_NONE, 0.5, 0.75, 0.9), build, cost)


def dmjd(model: str) -> Case:
    """Two disjoint views of an image, each as MAE's, and the visible branch."""

    def build(ratio: float) -> Method:
        mask = Mask(strategy=Disjoint(views=2, unit=1), kind="drop", ratio=Constant(value=ratio))
        settings = Dmjd(decoder=DecoderShape(mlp_ratio=4.0))
        return DmjdMethod(settings, _backbone(model, 0.0), mask, ONE_CROP, seed=0)

    def cost(visible: int) -> Cost:
        decoder = Decoding(target=108, visible_branch=True)
        return mae_step(SHAPES[model], decoder, patches=PATCHES, visible=visible, views=2)

    title = f"DMJD, ViT-{model}/16, two views, decoder 512 x 8, HOG, encoder dropped"
    return Case(title, {"global": (1, 224)}, (ALMOST_NONE, 0.5, 0.75, 0.9), build, cost)


# method -> (its case, the model it is measured with)
CASES: dict[str, tuple[Callable[[str], Case], str]] = {
    "dino": (dino, "small"),
    "maskedkd": (maskedkd, "small"),
    "mae": (mae, "base"),
    "dmjd": (dmjd, "small"),
}


def _backbone(model: str, drop_path: float) -> Backbone:
    return Backbone(name=f"vit_{model}_patch16_224", drop_path=drop_path)


def _classifying(vit: Vit) -> Vit:
    return Vit(vit.dim, vit.depth, classes=CLASSES)
