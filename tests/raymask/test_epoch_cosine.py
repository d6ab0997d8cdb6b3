"""The learning rate of DeiT-style recipes."""

import pytest
import torch

from raymask.epoch_cosine import EpochCosine
from raymask.optim import Optim, group
from raymask.progress import Progress
from raymask.vit import Backbone


def values(schedule, epochs: int, steps_per_epoch: int = 4) -> list[float]:
    steps = epochs * steps_per_epoch
    return [schedule(Progress(step=i, steps=steps, steps_per_epoch=steps_per_epoch)) for i in range(steps)]


def test_the_rate_is_constant_in_an_epoch_and_lags_by_one():
    rates = values(EpochCosine(start=0.1, peak=1.0, warmup=0.3), epochs=10)
    by_epoch = rates[::4]
    assert rates == [rate for rate in by_epoch for _ in range(4)]
    assert by_epoch[:4] == pytest.approx([0.1, 0.1, 0.4, 0.7])


def test_without_lag_the_warm_up_begins_at_once():
    assert values(EpochCosine(peak=1.0, warmup=0.5, lag=0), epochs=4)[::4][:3] == [0.0, 0.5, 0.5]


def test_epochs_of_its_own_do_not_depend_on_those_of_the_data():
    own = EpochCosine(peak=1.0, warmup=0.15, epochs=20)
    assert values(own, epochs=10, steps_per_epoch=8) == values(own, epochs=40, steps_per_epoch=2)
    assert len(set(values(own, epochs=5, steps_per_epoch=16))) == 19


def test_values_stay_within_their_bounds():
    schedule = EpochCosine(start=0.2, peak=1.0, end=0.05, warmup=0.2)
    low, high = schedule.bounds()
    assert low <= min(values(schedule, 12)) and max(values(schedule, 12)) <= high


def test_deits_rule_gives_the_papers_peak_for_its_batch():
    optim = Optim(base_lr=2.5e-4, min_lr=1e-5, start_lr=1e-6, lr_rule="deit", warmup=5 / 300)
    rates = values(optim.lr(1024), epochs=300, steps_per_epoch=1)
    assert rates[:2] == [1e-6, 1e-6]
    # The peak itself is never reached: after five epochs of warm-up the cosine is five epochs under way.
    assert rates[6] == max(rates) == pytest.approx(1e-3, rel=1e-3)


def test_timms_rule_decays_no_tokens_and_no_positions():
    backbone = Backbone(
        name="deit_tiny_distilled_patch16_224", image_size=32, patch_size=8, dim=24, depth=1, heads=2
    ).build(seed=0, mask_token=True)
    spared = {name for name, _ in group(backbone, tokens=False)[False]} - {
        name for name, _ in group(backbone)[False]
    }
    assert spared == {"mask_token", "vit.cls_token", "vit.dist_token", "vit.pos_embed"}
    assert all(torch.is_tensor(parameter) for _, parameter in group(backbone, tokens=False)[True])
