"""The optimiser: groups, rates, clip and frozen prototypes."""

import pytest
import torch
from torch import nn

from raymask.ema import ema_
from raymask.heads import Head
from raymask.methods.method import Network
from raymask.optim import Optim, clip_, freeze_last_layer, group
from raymask.progress import Progress
from raymask.schedules import Constant
from raymask.vit import Backbone


def network(*, mask_token: bool = True, norm_last_layer: bool = True) -> Network:
    body = Backbone(image_size=16, patch_size=8, dim=12, heads=2, depth=1, registers=1)
    head = Head(hidden_dim=8, bottleneck_dim=6, out_dim=10, norm_last_layer=norm_last_layer)
    return Network(body.build(seed=0, mask_token=mask_token), head.build(12, seed=0))


def names(groups: dict) -> dict[bool, set[str]]:
    return {decays: {name for name, _ in members} for decays, members in groups.items()}


def test_tokens_positions_and_free_gains_are_decayed_biases_and_norms_are_not():
    groups = names(group(network(norm_last_layer=False)))
    tokens = {"backbone.mask_token"} | {f"backbone.vit.{n}" for n in ("cls_token", "reg_token", "pos_embed")}
    assert tokens | {"head.last_layer.gain", "head.last_layer.direction"} <= groups[True]
    assert {"backbone.vit.norm.weight", "head.mlp.0.bias"} <= groups[False]


def test_frozen_gains_belong_to_no_group():
    groups = names(group(network(norm_last_layer=True)))
    assert "head.last_layer.gain" not in groups[True] | groups[False]


def test_the_learning_rate_grows_with_the_batch_and_its_floor_does_not():
    optim = Optim(base_lr=1e-3, min_lr=1e-6, warmup=0.1)
    assert optim.lr(512).peak == 2e-3 and optim.lr(512).end == 1e-6
    assert optim.lr(512)(Progress(0, 100, 10)) == 0.0


def test_rates_reach_the_groups_and_only_the_first_is_decayed():
    optim = Optim(weight_decay=Constant(value=0.3))
    optimiser = optim.build(network())
    rates = optim.set_rates(optimiser, Progress(50, 100, 10), global_batch=256)
    assert rates["wd"] == 0.3 and 0 < rates["lr"] < 5e-4
    assert {(g["decays"], g["lr"], g["weight_decay"]) for g in optimiser.param_groups} == {
        (True, rates["lr"], 0.3),
        (False, rates["lr"], 0.0),
    }


def test_each_tensor_is_clipped_by_its_own_norm():
    layer = nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 10.0), torch.full((2,), 0.1)
    norm = clip_(torch.optim.SGD(layer.parameters()), 3.0)
    assert norm.item() == pytest.approx((600 + 0.02) ** 0.5)
    assert layer.weight.grad.norm().item() == pytest.approx(3.0, rel=1e-5)
    assert torch.equal(layer.bias.grad, torch.full((2,), 0.1))


def test_without_a_limit_gradients_are_measured_and_left_alone():
    layer = nn.Linear(3, 2)
    layer.weight.grad, layer.bias.grad = torch.full((2, 3), 10.0), torch.zeros(2)
    assert clip_(torch.optim.SGD(layer.parameters()), None).item() == pytest.approx(600**0.5)
    assert torch.equal(layer.weight.grad, torch.full((2, 3), 10.0))


def test_frozen_prototypes_neither_move_nor_decay_nor_get_moments():
    student = network()
    optim = Optim(weight_decay=Constant(value=0.5))
    optimiser = optim.build(student)
    optim.set_rates(optimiser, Progress(50, 100, 10), global_batch=256)
    sum(p.sum() for p in student.parameters()).backward()
    before = student.head.last_layer.direction.detach().clone()
    freeze_last_layer(optimiser)
    optimiser.step()
    assert torch.equal(student.head.last_layer.direction, before)
    assert student.head.last_layer.direction not in optimiser.state
    assert student.head.mlp[0].weight in optimiser.state


def test_the_moving_average_takes_what_both_have_and_leaves_buffers_alone():
    student, teacher = (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)) for _ in range(2))
    student.token = nn.Parameter(torch.ones(1))
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    student[1].running_mean += 1
    ema_(teacher, student, 0.9)
    for name, parameter in teacher.named_parameters():
        expected = 0.9 * before[name] + 0.1 * student.get_parameter(name)
        torch.testing.assert_close(parameter, expected)
    assert torch.equal(teacher[1].running_mean, before["1.running_mean"])


@pytest.mark.parametrize(
    "wrong", [{"clip": 0.0}, {"warmup": 1.5}, {"base_lr": -1.0}, {"freeze_last_layer": -1}]
)
def test_impossible_values_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Optim(**wrong)
