"""Presets: papers' recipes that say what they are."""

from functools import reduce

import pytest

from raymask import presets
from raymask.config import Config, load
from raymask.progress import Progress

# What the papers and their released code give, by dotted key; durations in epochs and rates in full stand in
# SCHEDULES.
IBOT = {
    "train.global_batch": 1024,
    "train.epochs": 800,
    "optim.clip": 3.0,
    "optim.freeze_last_layer": 1,
    "backbone.name": "vit_small_patch16_224",
    "backbone.drop_path": 0.1,
    "data.crops.global_crops.scale": (0.25, 1.0),
    "data.crops.local_crops.scale": (0.05, 0.25),
    "data.crops.local_crops.count": 10,
    "method.head.out_dim": 8192,
    "method.head.patch_dim": None,
    "method.head.norm_last_layer": False,
    "method.patch.weight": 1.0,
    "method.center_momentum": 0.9,
    "method.momentum.start": 0.996,
    "mask.views": "student_globals",
    "mask.kind": "token",
    "mask.strategy.kind": "block",
    "mask.ratio.value": 0.3,
    "mask.spread": 0.2,
    "mask.per": "image",
    "mask.probability": 0.5,
}
ATTMASK = IBOT | {
    "train.global_batch": 240,
    "train.epochs": 100,
    "mask.per": "batch",
    "mask.strategy.kind": "attention",
    "mask.strategy.block": -1,
    "mask.strategy.guidance.value": 1.0,
    "mask.strategy.prefer": "high",
    "mask.strategy.reveal_pool": 0.0,
}
KD = {
    "train.global_batch": 1024,
    "train.epochs": 300,
    "backbone.name": "deit_tiny_patch16_224",
    "backbone.drop_path": 0.1,
    "optim.betas": (0.9, 0.999),
    "optim.weight_decay.value": 0.05,
    "optim.decay_tokens": False,
    "optim.clip": None,
    "data.repeats": 3,
    "data.crops.global_crops.scale": (0.08, 1.0),
    "data.crops.global_crops.randaugment.magnitude": 9.0,
    "data.crops.global_crops.randaugment.spread": 0.5,
    "data.crops.global_crops.jitter": 0.0,
    "method.mixing.mixup": 0.8,
    "method.mixing.cutmix": 1.0,
    "method.mixing.smoothing": 0.1,
    "method.erasing.probability": 0.25,
    "method.objective.alpha.value": 0.5,
    "method.teacher.name": "deit_small_patch16_224.fb_in1k",
    "method.keep.ratio.value": 1.0,
}
MAE = {
    "train.global_batch": 4096,
    "train.epochs": 1600,
    "backbone.name": "vit_base_patch16_224",
    "optim.betas": (0.9, 0.95),
    "optim.weight_decay.value": 0.05,
    "optim.clip": None,
    "data.crops.global_crops.scale": (0.2, 1.0),
    "method.target.kind": "pixels",
    "method.target.normalise": True,
    "method.decoder.dim": 512,
    "method.decoder.depth": 8,
    "method.decoder.heads": 16,
    "method.decoder.mlp_ratio": 4.0,
    "mask.kind": "drop",
    "mask.strategy.views": 1,
    "mask.strategy.unit": 1,
    "mask.ratio.value": 0.75,
}
TWO_VIEWS = {
    "train.epochs": 400,
    "data.crops.global_crops.scale": (0.5, 1.0),
    "method.target.kind": "hog",
    "method.theta": 1.0,
    "method.loss": "l2",
    "method.visible_loss": "smooth_l1",
    "method.pairing": "aligned",
    "method.adaptive_lr": True,
    "mask.strategy.views": 2,
    "mask.strategy.prediction_rate": 1.0,
    "mask.ratio.value": 0.6,
}
RECIPES = {
    "ibot-block": IBOT,
    "ibot-random": IBOT | {"mask.strategy.kind": "random"},
    "attmask-high": ATTMASK,
    "attmask-low": ATTMASK | {"mask.strategy.prefer": "low"},
    "attmask-hint": ATTMASK | {"mask.strategy.reveal_pool": 0.1, "mask.strategy.reveal": None},
    "kd-soft": KD | {"method.objective.kind": "soft", "method.objective.temperature.value": 1.0},
    "kd-hard": KD | {"method.objective.kind": "hard"},
    "maskedkd-50": KD | {"method.keep.ratio.value": 0.5, "method.keep.source": "student"},
    "maskedkd-25": KD
    | {"method.keep.ratio.value": 0.25, "method.teacher.name": "deit3_small_patch16_224.fb_in1k"},
    "mae": MAE,
    "convmae": {
        "train.epochs": 1600,
        "train.global_batch": 3072,
        "backbone.dims": (256, 384, 768),
        "backbone.depths": (2, 2, 11),
        "backbone.mlp_ratios": (4.0, 4.0, 4.0),
        "mask.ratio.value": 0.75,
    },
    "dmjd": TWO_VIEWS
    | {
        "train.global_batch": 512,
        "backbone.mlp_ratios": (8.0, 8.0, 4.0),
        "method.decoder.mlp_ratio": 8.0,
        "mask.strategy.unit": 2,
    },
    "dmjd-vit": TWO_VIEWS | {"backbone.name": "vit_base_patch16_224", "mask.strategy.unit": 1},
}
# Peak learning rate, the last one, epochs of warm-up.
RATES = {
    "dino": (1e-3, 1e-6, 10),
    "dino-boosted": (2e-3, 1e-6, 10),
    "ibot-block": (2e-3, 1e-6, 10),
    "attmask-high": (5e-4 * 240 / 256, 1e-6, 10),
    "kd-soft": (1e-3, 1e-5, 5),
    "mae": (2.4e-3, 0.0, 40),
    "convmae": (1.8e-3, 0.0, 40),
    "dmjd": (2e-3, 0.0, 20),
    "dmjd-vit": (4e-3, 0.0, 20),
}


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


@pytest.mark.parametrize("name", RECIPES)
def test_a_preset_states_its_paper_s_recipe(name: str):
    config = load(name)
    given = {key: reduce(getattr, key.split("."), config) for key in RECIPES[name]}
    assert given == RECIPES[name]


@pytest.mark.parametrize("name", RATES)
def test_the_learning_rate_of_a_preset_is_the_paper_s(name: str):
    config = load(name)
    peak, end, warmup = RATES[name]
    schedule = config.optim.lr(config.train.global_batch * images_for_one(config))
    assert (schedule.peak, schedule.end) == (pytest.approx(peak), end)
    assert config.train.epochs * config.optim.warmup == pytest.approx(warmup, rel=1e-4)


def images_for_one(config: Config) -> float:
    """What DMJD's adaptive rule makes of an image."""
    if not getattr(config.method, "adaptive_lr", False):
        return 1.0
    ratio = config.mask.ratio.value
    return config.mask.strategy.reached(ratio) / ratio


@pytest.mark.parametrize("name", ["ibot-block", "attmask-high", "attmask-hint"])
def test_the_teacher_s_temperatures_rise_for_thirty_epochs(name: str):
    config = load(name)
    epochs = round(config.train.epochs)
    for ramp in (config.method.teacher_temperature, config.method.patch.teacher_temperature):
        values = [ramp(Progress(step=e, steps=epochs, steps_per_epoch=1)) for e in range(epochs)]
        assert values[0] == 0.04 and values[28] < 0.07 and set(values[29:]) == {0.07}


@pytest.mark.parametrize("which", ["high", "low", "hint"])
def test_attmask_on_plain_dino_differs_by_the_patch_objective_alone(which: str):
    plain = load(f"dino-attmask-{which}", [f"run.name=attmask-{which}"])
    dense = load(f"attmask-{which}")
    without = dense.method.model_copy(update={"patch": None})
    assert plain == dense.model_copy(update={"method": without})
