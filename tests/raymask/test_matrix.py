"""Every strategy x scores x method x hiding x views trains for some steps, or is refused in one sentence."""

from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from itertools import product
from typing import NamedTuple

import pytest
import torch
from torch import nn

from pipelines.batch import Batch
from raymask.backbone import VisionBackbone
from raymask.frozen import FrozenNetwork
from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods.dino import Dino, DinoMethod
from raymask.methods.dmjd import Dmjd, DmjdMethod
from raymask.methods.keep import Keep
from raymask.methods.mae import Mae, MaeMethod
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method
from raymask.methods.patch import Patch
from raymask.optim import Optim
from raymask.step import train_step
from raymask.streams import Rng
from raymask.targets import FrozenTeacher, Hog, Pixels, Teacher
from raymask.vit import Backbone
from tests.raymask.autoencoding import BACKBONES, DECODER, crops
from tests.raymask.toy import batch, progress

OPTIM = Optim(base_lr=0.1, freeze_last_layer=0)
STRATEGIES = {
    "random": {"kind": "random"},
    "block": {"kind": "block"},
    "high": {"kind": "attention"},
    "low": {"kind": "attention", "prefer": "low", "guidance": 0.5},
    "hint": {"kind": "attention", "reveal_pool": 0.2, "reveal": 1.0, "block": 0},
    "disjoint": {"kind": "disjoint", "unit": 1},
}
GUIDED = ("high", "low", "hint")
KINDS = ("token", "drop", "pixel")
VIEWS = ("none", "student_globals", "student", "student_and_teacher")
# What gives the scores: the method's own teacher; MaskedKD's keep.source; what MAE and DMJD predict.
SOURCES = {
    "dino": ("teacher",),
    "ibot": ("teacher",),
    "maskedkd": ("student", "teacher", "network", "random"),
    **dict.fromkeys(
        ("mae", "dmjd", "mae on convvit", "dmjd on convvit"), ("pixels", "hog", "teacher", "frozen")
    ),
}


class Cell(NamedTuple):
    """One combination."""

    method: str
    strategy: str
    kind: str
    views: str
    source: str

    @property
    def autoencodes(self) -> bool:
        return self.method.startswith(("mae", "dmjd"))


def cells() -> Iterator[Cell]:
    for method, sources in SOURCES.items():
        for strategy, kind, views, source in product(STRATEGIES, KINDS, VIEWS, sources):
            # Where nothing is masked nobody asks the strategy: two stand for all.
            if views != "none" or strategy in ("random", "high"):
                yield Cell(method, strategy, kind, views, source)


def refusal(cell: Cell) -> str | None:
    """Words of the sentence that a combination without sense gets; None for one that trains."""
    guided, uneven = cell.strategy in GUIDED, cell.strategy in ("block", "hint")
    several = cell.strategy == "disjoint" and cell.views != "none"
    rules = [
        (cell.kind == "drop" and uneven, "where every row must hide the same count"),
        (
            guided and cell.views in ("student", "student_and_teacher"),
            "the guide looks only at whole global crops",
        ),
    ]
    if cell.autoencodes:
        rules += [
            (cell.kind != "drop", "set mask.kind=drop"),
            (cell.views != "student_globals", "set mask.views=student_globals"),
            (guided and cell.source in ("pixels", "hog"), "needs a network that sees the whole crop"),
            (
                guided and cell.source == "teacher" and "convvit" in cell.method,
                "has no class token whose attention",
            ),
        ]
    elif cell.method == "maskedkd":
        rules += [
            (cell.views == "student_and_teacher", "what the teacher sees is chosen by method.keep"),
            (several, "only method.kind=mae and dmjd train on"),
            (guided and cell.views != "none", "the student runs first"),
        ]
    else:
        predicts = cell.method == "ibot"
        rules += [
            (several, "only method.kind=mae and dmjd train on"),
            (predicts and (cell.views != "student_globals" or cell.kind == "drop"), "method.patch predicts"),
        ]
    return next((words for holds, words in rules if holds), None)


TRAINS = [cell for cell in cells() if refusal(cell) is None]
REFUSED = [cell for cell in cells() if refusal(cell) is not None]


@cache
def built(settings: Backbone, mask_token: bool, classes: int) -> VisionBackbone:
    return Backbone.build(settings, seed=0, mask_token=mask_token, classes=classes)


class Shared(Backbone):
    """A tiny network that is built once and copied."""

    def build(self, *, seed: int, mask_token: bool = False, classes: int = 0) -> VisionBackbone:
        return deepcopy(built(self, mask_token, classes))


@cache
def frozen(settings: FrozenNetwork, image_size: tuple[int, int], classes: int | None) -> nn.Module:
    return FrozenNetwork.build(settings, image_size=image_size, seed=0, classes=classes)


class SharedFrozen(FrozenNetwork):
    """A tiny frozen network that is built once."""

    def build(
        self, *, image_size: tuple[int, int], seed: int, classes: int | None, colours: object = None
    ) -> nn.Module:
        return frozen(self, image_size, classes)


BODY = Shared(image_size=32, patch_size=8, dim=24, depth=2, heads=2, drop_path=0.1)
NETWORK = SharedFrozen(name="vit_tiny_patch16_224", patch_size=8, dim=16, depth=1, heads=2)
TARGETS = {"pixels": Pixels(), "hog": Hog(), "teacher": Teacher(), "frozen": FrozenTeacher(network=NETWORK)}
HEAD = Head(hidden_dim=16, bottleneck_dim=8, out_dim=24)


def build(cell: Cell) -> Method:
    mask = Mask(strategy=STRATEGIES[cell.strategy], kind=cell.kind, views=cell.views, ratio=0.5)
    if cell.method in ("dino", "ibot"):
        settings = Dino(head=HEAD, patch=Patch() if cell.method == "ibot" else None)
        return DinoMethod(settings, BODY, mask, seed=0)
    if cell.method == "maskedkd":
        keep = Keep(ratio=0.5, source=cell.source)
        selector = NETWORK if cell.source == "network" else None
        chosen = MaskedKD(teacher=NETWORK, selector=selector, keep=keep, classes=2)
        return MaskedKDMethod(chosen, BODY, mask, crops(), seed=0)
    body = BACKBONES["convvit"] if "convvit" in cell.method else BODY
    if cell.method.startswith("dmjd"):
        return DmjdMethod(Dmjd(decoder=DECODER, target=TARGETS[cell.source]), body, mask, crops(), seed=0)
    return MaeMethod(Mae(decoder=DECODER, target=TARGETS[cell.source]), body, mask, crops(), seed=0)


@cache
def noise(step: int, locals_: int) -> Batch:
    return batch(2, locals_=locals_, step=step, dtype=torch.float32)


@pytest.mark.parametrize("cell", TRAINS, ids="-".join)
def test_a_combination_that_makes_sense_trains_every_parameter_on_masks_that_change(cell: Cell):
    method, reports = build(cell).train(), []
    optimiser = OPTIM.build(method.student)
    locals_ = 1 if cell.method in ("dino", "ibot") else 0
    for step in (0, 2):  # of different epochs: within one, an image keeps its masks
        images, rng = noise(step, locals_), Rng(0, step)
        reports.append(train_step(method, images, progress(step), rng, optimiser=optimiser, optim=OPTIM))
    assert all(report["loss"].isfinite() for report in reports)
    trained = {name: p for name, p in method.student.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None or not p.grad.isfinite().all()] == []
    masks = [report["masks"].item() for report in reports]
    masked = cell.views != "none" or cell.method == "maskedkd"
    assert masks[0] != masks[1] if masked else masks == [0, 0]


@pytest.mark.parametrize("cell", REFUSED, ids="-".join)
def test_a_combination_without_sense_gets_one_sentence(cell: Cell):
    words = refusal(cell)
    with pytest.raises(ValueError) as refused:
        build(cell)
    assert words in str(refused.value)
