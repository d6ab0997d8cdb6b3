"""The projection head."""

import pytest
import torch
from torch import nn

from raymask.heads import Head
from raymask.official import head_from_official, head_to_official

TINY = {"hidden_dim": 24, "bottleneck_dim": 8, "out_dim": 16}


def rows(count=6, dim=12):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, dim, generator=generator)


def test_scores_are_the_bottleneck_against_the_effective_weight():
    head = Head(**TINY).build(12, seed=0)
    bottleneck = head.bottleneck(rows())
    torch.testing.assert_close(bottleneck.norm(dim=1), torch.ones(6))
    torch.testing.assert_close(head(rows()), bottleneck @ head.weight().T)


def test_prototypes_have_the_length_of_their_gain_and_a_gradient_across_their_direction():
    head = Head(**TINY).build(12, seed=0)
    head.last_layer.gain.data = torch.linspace(0.5, 2, 16)[:, None]
    torch.testing.assert_close(head.weight().norm(dim=1, keepdim=True), head.last_layer.gain.data)
    head(rows()).square().sum().backward()
    along = (head.last_layer.direction.grad * head.last_layer.direction).sum(1)
    assert head.last_layer.direction.grad.abs().max() > 1e-3
    torch.testing.assert_close(along, torch.zeros(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("norm_last_layer", "teacher", "trained"),
    [(True, False, False), (False, False, True), (False, True, False), (True, True, False)],
)
def test_gains_are_trained_only_in_a_student_that_is_told_so(norm_last_layer, teacher, trained):
    head = Head(**TINY, norm_last_layer=norm_last_layer).build(12, seed=0, teacher=teacher)
    assert head.last_layer.gain.requires_grad is trained
    assert torch.equal(head.last_layer.gain, torch.ones(16, 1))


@pytest.mark.parametrize(("nlayers", "linears"), [(1, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_batch_norm_stands_between_the_layers_only(nlayers, linears, batch_norm):
    head = Head(**TINY, nlayers=nlayers, batch_norm=batch_norm).build(12, seed=0)
    kinds = [type(layer) for layer in head.mlp]
    assert kinds.count(nn.Linear) == linears
    assert kinds.count(nn.BatchNorm1d) == (linears - 1) * batch_norm
    assert kinds[-1] is nn.Linear
    assert head(rows()).shape == (6, 16)


def test_initial_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone():
    before = torch.random.get_rng_state()
    one, same, other = (Head(**TINY).build(12, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(before, torch.random.get_rng_state())
    assert all(torch.equal(one[key], same[key]) for key in one)
    assert not torch.equal(one["last_layer.direction"], other["last_layer.direction"])


def test_initial_weights_are_those_of_the_official_code():
    head = Head(hidden_dim=256, bottleneck_dim=64, out_dim=512).build(128, seed=0)
    for layer in head.mlp:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert not layer.bias.any()
    assert head.last_layer.direction.abs().max().item() == pytest.approx(1 / 8, rel=0.01)  # uniform


@pytest.mark.parametrize("nlayers", [1, 3])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_official_names_go_there_and_back(nlayers, batch_norm):
    head = Head(**TINY, nlayers=nlayers, batch_norm=batch_norm).build(12, seed=0)
    official = head_to_official(head.state_dict())
    assert {"last_layer.weight_g", "last_layer.weight_v"} <= set(official)
    assert ("mlp.weight" in official) == (nlayers == 1)
    assert list(head_from_official(official)) == list(head.state_dict())


def test_the_newer_names_of_weight_normalisation_are_understood():
    names = ("last_layer.parametrizations.weight.original0", "last_layer.parametrizations.weight.original1")
    assert list(head_from_official(dict.fromkeys(names, torch.ones(1)))) == [
        "last_layer.gain",
        "last_layer.direction",
    ]
