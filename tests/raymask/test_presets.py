"""Presets: papers' recipes that say what they are."""

import pytest

from raymask import presets
from raymask.config import load


@pytest.mark.parametrize("name", presets.names())
def test_a_preset_says_its_paper_its_masks_and_what_differs(name: str):
    said = presets.about(name)
    assert set(said) == {"paper", "masks", "differs"} and all(said.values())


def test_the_first_paper_masks_the_students_globals_only_and_its_arms_differ_in_that_alone():
    paper = load("dino-random-mask")
    assert (paper.mask.views, paper.mask.kind, paper.mask.ratio.value) == ("student_globals", "token", 0.3)
    for name, views in {"student": "student", "all": "student_and_teacher"}.items():
        arm = load(f"dino-random-mask-{name}", ["run.name=dino-random-mask", "mask.views=student_globals"])
        assert load(f"dino-random-mask-{name}").mask.views == views
        assert arm == paper


def test_the_recipe_of_dino_is_the_official_one():
    config = load("dino")
    assert (config.train.global_batch, config.train.epochs, config.optim.warmup) == (512, 100, 0.1)
    assert config.method.head.out_dim == 65536 and config.method.head.norm_last_layer
    assert config.data.crops.local_crops.count == 8 and config.mask.views == "none"
    boosted = load("dino-boosted")
    assert (boosted.train.global_batch, boosted.train.epochs) == (1024, 300)
    assert boosted.train.epochs * boosted.optim.warmup == pytest.approx(10, rel=1e-4)
    assert not boosted.method.head.norm_last_layer and boosted.method.teacher_temperature.end == 0.07
