"""Bad input of the four methods gets one sentence before the first step, whatever part it comes through.

What a single part refuses by itself stands in that part's own tests; the combinations in test_matrix.py.
"""

from collections.abc import Callable

import pytest
from safetensors.torch import save_file

from raymask.config import build
from raymask.frozen import FrozenNetwork
from raymask.masks import Mask
from raymask.methods import build_method
from raymask.methods.dino import Dino
from raymask.methods.kd_objectives import Deit, Hard, Soft
from raymask.methods.keep import Keep
from raymask.methods.maskedkd import MaskedKD, MaskedKDMethod
from raymask.methods.method import Method
from raymask.methods.patch import Patch
from raymask.optim import Optim
from raymask.schedules import Linear
from raymask.targets import FrozenTeacher, Hog, Teacher
from tests.raymask.autoencoding import BACKBONES, crops, disjoint, dmjd, mae
from tests.raymask.toy import dino

VIT = FrozenNetwork(name="vit_tiny_patch16_224", patch_size=8, dim=16, depth=2, heads=2)
CONVOLUTIONAL = FrozenNetwork(name="resnet10t")
FIXED = FrozenNetwork(name="eva02_tiny_patch14_224")  # made for one size of images
ATTENTION = {"kind": "attention"}


def maskedkd(keep: Keep | None = None, *, teacher: FrozenNetwork = VIT, **settings) -> Method:
    chosen = MaskedKD(teacher=teacher, keep=keep or Keep(ratio=0.5), **{"classes": 2} | settings)
    return MaskedKDMethod(chosen, BACKBONES["vit"], Mask(views="none"), crops(), seed=0)


def guided(*, kind: str = "drop", **strategy) -> Mask:
    return Mask(strategy=ATTENTION | strategy, kind=kind, ratio=0.5)


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "a teacher's grid of another aspect": (
        lambda: maskedkd(teacher=VIT.model_copy(update={"image_size": (32, 64)})),
        "4 x 4 patches and the teacher 4 x 8: grids of different aspect cannot be mapped",
    ),
    "a selector's grid of another aspect": (
        lambda: maskedkd(
            Keep(ratio=0.5, source="network"), selector=VIT.model_copy(update={"image_size": (64, 32)})
        ),
        "8 x 4 patches and the teacher 4 x 4: grids of different aspect cannot be mapped",
    ),
    "a target's grid that is not the student's": (
        lambda: mae(target=FrozenTeacher(network=VIT.model_copy(update={"patch_size": 16}))),
        "2x2 patches, the student into 4x4: set method.target.network.image_size",
    ),
    "a target of cells that do not tile a patch": (
        lambda: dmjd(target=Hog(cell=3)),
        "HOG cells of 3 pixels do not tile patches of 8 pixels: set method.target.cell",
    ),
    "a keep count above the patches": (
        lambda: maskedkd(Keep(count=17)),
        "cannot keep 17 patches: the network has 16, so keep 1 to 16",
    ),
    "a keep count above the patches at the end": (
        lambda: maskedkd(Keep(count=Linear(start=8, end=20))),
        "cannot keep 20 patches: the network has 16, so keep 1 to 16",
    ),
    "a keep ratio that leaves nothing": (lambda: Keep(ratio=0), "the teacher must see at least one patch"),
    "nothing visible": (lambda: Mask(ratio=1.0), "leaves nothing visible or nothing hidden"),
    "nothing visible at the end of a schedule": (
        lambda: Mask(ratio=Linear(start=0.5, end=1.0)),
        "0.5 to 1 leaves nothing visible or nothing hidden",
    ),
    "nothing visible in units": (
        lambda: dmjd(disjoint(0.8, unit=2)),
        "a mask ratio of 0.8 leaves no visible unit of 4: lower the ratio or use smaller units",
    ),
    "nothing hidden at the start of a schedule": (
        lambda: mae(Mask(kind="drop", ratio=Linear(start=0.0, end=0.8))),
        "down to 0 of 16 patches leave none hidden at times: set mask.start=0 and a higher mask.ratio",
    ),
    "nothing hidden at the low end of a spread": (
        lambda: mae(Mask(kind="drop", ratio=0.3, spread=0.28)),
        "down to 0.02 of 16 patches leave none hidden at times",
    ),
    "nothing hidden before a start": (
        lambda: mae(Mask(kind="drop", ratio=0.5, start=0.1)),
        "mask.start=0.1 and a mask ratio down to 0.5 of 16 patches leave none hidden at times",
    ),
    "a prediction rate below the mask ratio": (
        lambda: dmjd(disjoint(0.6, rate=0.5)),
        "the prediction rate 0.5 is below the mask ratio 0.6",
    ),
    "a prediction rate below what the ratio grows to": (
        lambda: dmjd(disjoint(rate=0.7).model_copy(update={"ratio": Linear(start=0.5, end=0.75)})),
        "the prediction rate 0.7 is below the mask ratio 0.75",
    ),
    "no classes": (lambda: maskedkd(classes=None), "distillation with labels needs data with classes"),
    "attention of a convolutional selector": (
        lambda: maskedkd(Keep(ratio=0.5, source="network"), selector=CONVOLUTIONAL),
        "and CaiT, or let the student choose (method.keep.source=student)",
    ),
    "a convolutional teacher that is to miss patches": (
        lambda: maskedkd(teacher=CONVOLUTIONAL),
        "and CaiT, or let the teacher see everything (method.keep.ratio=1)",
    ),
    "patches of a convolutional target": (
        lambda: mae(target=FrozenTeacher(network=CONVOLUTIONAL)),
        "a frozen ResNet has no tokens of patches and no attention of [CLS]",
    ),
    "a teacher made for images of another size": (
        lambda: maskedkd(Keep(ratio=1.0), teacher=FIXED),
        "method.teacher cannot look at images of 32x32 pixels (Input height (32) doesn't match model (224)): "
        "set method.teacher.image_size=224, to which its images are then resized",
    ),
    "a size that a teacher is not made for": (
        lambda: maskedkd(Keep(ratio=1.0), teacher=FIXED.model_copy(update={"image_size": 96})),
        "method.teacher cannot look at images of 96x96 pixels",
    ),
    "attention of a convolutional target": (
        lambda: mae(guided(), target=FrozenTeacher(network=CONVOLUTIONAL)),
        "and CaiT, or another method.target.kind",
    ),
    "attention of a network without class token": (
        lambda: mae(guided(), backbone="convvit", target=Teacher()),
        "ConvViT has no class token whose attention could guide a mask",
    ),
    "attention where no network looks": (
        lambda: mae(guided(), target=Hog()),
        "needs a network that sees the whole crop, and method.kind=mae has none",
    ),
    "attention of a block that the teacher lacks": (
        lambda: dino(guided(kind="token", block=2)),
        "mask.strategy.block=2, but the guide has 2 blocks: choose one from 0 to 1, or from -1 to -2",
    ),
    "attention of a block that the moving average lacks": (
        lambda: mae(guided(block=-3), target=Teacher()),
        "mask.strategy.block=-3, but the guide has 2 blocks",
    ),
    "attention of a frozen network's inner block": (
        lambda: mae(guided(block=0), target=FrozenTeacher(network=VIT)),
        "a frozen network gives the attention of its last block: set mask.strategy.block=-1",
    ),
    "guidance beyond attention": (
        lambda: guided(guidance=Linear(start=0.0, end=1.5)),
        "goes from 0 to 1.5, but a share lies between 0 and 1",
    ),
    "a teacher's temperature that falls to nothing": (
        lambda: Dino(teacher_temperature=Linear(start=0.04, end=0.0)),
        "goes from 0 to 0.04, but a temperature lies above 0",
    ),
    "a student's temperature below nothing": (
        lambda: Dino(student_temperature=-0.1),
        "a temperature lies above 0",
    ),
    "a temperature of patches of nothing": (
        lambda: Patch(teacher_temperature=0.0),
        "goes from 0 to 0, but a temperature lies above 0",
    ),
    "a temperature of logits of nothing": (lambda: Soft(temperature=0.0), "a temperature lies above 0"),
    "labels that count less than nothing": (
        lambda: Hard(alpha=Linear(start=0.5, end=2.0)),
        "goes from 0.5 to 2, but a share lies between 0 and 1",
    ),
    "a momentum above one": (lambda: Dino(momentum=1.5), "goes from 1.5 to 1.5, but a share lies between"),
    "a spread of disjoint views": (
        lambda: Mask(strategy={"kind": "disjoint"}, kind="drop", spread=0.1),
        "mask.strategy.kind=disjoint hides mask.ratio in every view from the first step on",
    ),
    "hints without a pool": (
        lambda: guided(kind="token", reveal=0.5),
        "the share of mask.strategy.reveal_pool to show, which is 0: give reveal_pool",
    ),
    "hints of what is not hidden": (
        lambda: guided(kind="token", reveal_pool=0.1, prefer="low"),
        "mask.strategy.prefer=low hides those attended to least: set prefer=high or reveal_pool=0",
    ),
    "a pool of hints below one patch": (
        lambda: guided(kind="token", reveal_pool=0.015).check(64),
        "reveal_pool=0.015 holds none of 64 patches: choose one of at least 0.0157",
    ),
    "the lowest scores of chance": (
        lambda: Keep(ratio=0.5, source="random", prefer="lowest"),
        "keep.prefer says what becomes of scores, and keep.source=random has none: leave it out",
    ),
    "chance that is guided": (
        lambda: Keep(ratio=0.5, source="random", guidance=0.5),
        "keep.guidance says what becomes of scores",
    ),
    "a random share of chance": (
        lambda: Keep(ratio=0.5, source="random", random_share=0.2),
        "keep.random_share says what becomes of scores",
    ),
    "a selector that nobody asks": (
        lambda: maskedkd(selector=VIT),
        "method.selector chooses patches where keep.source is network, but it is student",
    ),
    "a count that is not whole": (
        lambda: Keep(count=12.7),
        "keep.count=12.7 is no whole number of patches: give 12 or 13",
    ),
    "a temperature of hard choices": (
        lambda: Deit(temperature=2.0),
        "objective.hard=true takes the teacher's first choice alone: set objective.hard=false",
    ),
    "another code's epochs of the learning rate": (
        lambda: Optim(lr_epochs=300),
        "optim.lr_epochs=300 is for DeiT's rule, but optim.lr_rule=dino: set optim.lr_rule=deit",
    ),
    "prototypes to freeze where there are none": (
        lambda: Optim(freeze_last_layer=2).build(mae().student),
        "optim.freeze_last_layer=2 holds the prototypes of DINO and iBOT still, and this method has none",
    ),
    "a class token asked of a ConvViT": (
        lambda: build_method(build({"backbone": {"kind": "convvit"}, "mask": {"views": "none"}})),
        "ConvViT has no class token, which method.kind=dino learns from",
    ),
}


# What is merely inherited, or says the same as nothing, is no mistake of its user's.
PASSED: dict[str, Callable[[], object]] = {
    "a preset's scores beside chance": lambda: Keep(
        ratio=0.5, source="random", prefer="highest", guidance=1.0, random_share=0.0
    ),
    "a preset's temperature beside hard choices": lambda: Deit(hard=True, temperature=1.0),
    "the default epoch of still prototypes": lambda: Optim().build(mae().student),
    "prototypes to freeze where there are some": lambda: Optim(freeze_last_layer=2).build(
        dino(Mask(ratio=0.5)).student
    ),
    "a count that grows": lambda: Keep(count=Linear(start=8, end=12.5)),
}


@pytest.mark.parametrize("given", PASSED)
def test_what_a_preset_says_anyway_is_not_refused(given: str):
    PASSED[given]()


@pytest.mark.parametrize("given", REFUSED)
def test_bad_input_gets_one_sentence_before_the_first_step(given: str):
    attempt, words = REFUSED[given]
    with pytest.raises(ValueError) as refused:
        attempt()
    assert words in str(refused.value)


def test_a_trained_teacher_of_other_classes_is_refused(tmp_path):
    network = VIT.build(image_size=(32, 32), seed=0, classes=3).network
    save_file(network.state_dict(), tmp_path / "teacher.safetensors")
    trained = VIT.model_copy(update={"weights": str(tmp_path / "teacher.safetensors")})
    with pytest.raises(ValueError, match="tells 3 classes apart, but the student and the data have 2"):
        maskedkd(teacher=trained)
