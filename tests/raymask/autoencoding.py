"""Small masked autoencoders that several tests train."""

from pipelines.crops import Crops, LocalCrops, MultiCrop
from raymask.convbackbone import ConvBackbone
from raymask.masks import Mask
from raymask.masks.disjoint import Disjoint
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.mae import DecoderShape, Mae, MaeMethod
from raymask.schedules import Constant
from raymask.vit import Backbone

DECODER = DecoderShape(dim=16, depth=1, heads=2, mlp_ratio=2.0)
BACKBONES = {
    "vit": Backbone(image_size=32, patch_size=8, dim=24, depth=2, heads=2, drop_path=0.1),
    "convvit": ConvBackbone(
        image_size=32, dims=(8, 8, 24), depths=(1, 1, 2), heads=2, mlp_ratios=(2, 2, 2), strides=(2, 2, 2)
    ),
}


def crops(*, locals_: int = 0) -> MultiCrop:
    plain = {"jitter": 0.0, "grey": 0.0, "blur": 0.0, "solarise": 0.0}
    return MultiCrop(
        global_crops=Crops(count=1, size=32, **plain), local_crops=LocalCrops(count=locals_, size=16)
    )


def one_view(ratio: float = 0.75) -> Mask:
    return Mask(strategy=Disjoint(views=1, unit=1), kind="drop", ratio=Constant(value=ratio))


def disjoint(ratio: float = 0.5, *, views: int | None = None, unit: int = 1, rate: float = 1.0) -> Mask:
    strategy = Disjoint(views=views, unit=unit, prediction_rate=rate)
    return Mask(strategy=strategy, kind="drop", ratio=Constant(value=ratio))


def mae(mask: Mask | None = None, *, backbone: str = "vit", **settings) -> MaeMethod:
    """In float64 and training mode."""
    chosen = Mae(decoder=DECODER, **settings)
    return MaeMethod(chosen, BACKBONES[backbone], mask or one_view(), crops(), seed=0).double().train()


def dmjd(mask: Mask | None = None, *, backbone: str = "vit", **settings) -> DmjdMethod:
    """In float64 and training mode."""
    chosen = Dmjd(decoder=DECODER, **settings)
    return DmjdMethod(chosen, BACKBONES[backbone], mask or disjoint(), crops(), seed=0).double().train()
