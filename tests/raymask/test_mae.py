"""MAE and ConvMAE as methods of the loop; their numbers are held by the golden cases."""

import pytest
import torch

from raymask.config import build
from raymask.frozen import FrozenNetwork
from raymask.iteration_cosine import IterationCosine
from raymask.masks import Mask
from raymask.masks.attention import AttentionStrategy
from raymask.methods import build_method
from raymask.methods.mae import MaeMethod
from raymask.progress import Progress
from raymask.schedules import Constant, Linear
from raymask.sincos import sincos_positions
from raymask.streams import Rng
from raymask.targets import FrozenTeacher, Hog, Pixels, Teacher
from tests.raymask.autoencoding import BACKBONES, crops, disjoint, mae, one_view
from tests.raymask.toy import batch, progress

RNG = Rng(seed=1, step=0)
NETWORK = FrozenNetwork(name="vit_tiny_patch16_224", patch_size=8, dim=16, depth=1, heads=2)
TARGETS = [Pixels(), Pixels(normalise=False), Hog(), Hog(cell=4), Teacher(), FrozenTeacher(network=NETWORK)]


def named(value):
    return type(value).__name__


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("target", TARGETS, ids=named)
def test_every_target_trains_all_of_either_encoder_and_no_teacher(target, backbone):
    method = mae(backbone=backbone, target=target)
    report = method(batch(locals_=0), progress(), RNG)
    report["loss"].backward()
    assert not [n for n, p in method.student.named_parameters() if p.requires_grad and p.grad is None]
    others = [p for n, p in method.named_parameters() if not n.startswith("student.")]
    assert all(p.grad is None and not p.requires_grad for p in others)
    assert torch.isfinite(report["loss"])


@pytest.mark.parametrize("target", TARGETS, ids=named)
@pytest.mark.parametrize("mask", [one_view(), disjoint(0.5, views=3)], ids=["one view", "three views"])
def test_the_loss_does_not_depend_on_chunks_or_the_order_of_images(mask, target):
    method = mae(mask, target=target)
    whole = batch(6, locals_=0)
    parts = [method(part, progress(), RNG) for part in whole.chunks(2)]
    report = method(whole, progress(), RNG)
    mean = sum(float(part["loss"].detach()) for part in parts) / 3
    assert mean == pytest.approx(float(report["loss"].detach()), rel=1e-12)
    assert sum(int(part["masks"]) for part in parts) % 2**64 == int(report["masks"]) % 2**64


def test_every_view_keeps_a_quarter_at_the_paper_s_ratio():
    method, seen = mae(), {}
    method.student.backbone.register_forward_pre_hook(
        lambda _, __, given: seen.update(given), with_kwargs=True
    )
    report = method(batch(locals_=0), progress(), RNG)
    assert seen["visible"].shape == (2 * 5, 4)
    assert report["mask_ratio"] == report["prediction_rate"] == 0.75


def test_a_ratio_schedule_changes_how_much_is_hidden():
    mask = one_view().model_copy(update={"ratio": Linear(start=0.25, end=0.75)})
    method = mae(mask)
    ratios = [method(batch(locals_=0), progress(step), RNG)["mask_ratio"] for step in (0, 10)]
    assert ratios == [0.25, 0.5]


def test_the_random_strategy_masks_like_a_single_disjoint_view():
    random = Mask(kind="drop", ratio=Constant(value=0.75))
    report = mae(random)(batch(locals_=0), progress(), RNG)
    assert report["mask_ratio"] == 0.75


@pytest.mark.parametrize("target", [Teacher(), FrozenTeacher(network=NETWORK)], ids=named)
@pytest.mark.parametrize("prefer", ["high", "low"])
def test_attention_of_the_target_s_network_can_choose_what_is_hidden(target, prefer):
    mask = Mask(strategy=AttentionStrategy(prefer=prefer), kind="drop", ratio=Constant(value=0.5))
    method, seen = mae(mask, target=target), {}
    method.student.backbone.register_forward_pre_hook(
        lambda _, __, given: seen.update(given), with_kwargs=True
    )
    images = batch(locals_=0)
    report = method(images, progress(), RNG)
    _, attention = method.guide(images.crops["global"].flatten(0, 1))
    shown = torch.zeros_like(attention, dtype=torch.bool).scatter(1, seen["visible"], True)
    low, high = (attention.masked_fill(~rows, 0).sum(1) for rows in (shown, ~shown))
    assert ((high > low) if prefer == "high" else (high < low)).all()
    assert report["guidance"] == 1.0


def test_only_a_moving_average_moves_and_only_by_its_momentum():
    method = mae(target=Teacher(momentum=Constant(value=0.75)))
    before = {n: p.clone() for n, p in method.teacher.backbone.named_parameters()}
    with torch.no_grad():
        for parameter in method.student.backbone.parameters():
            parameter += 1.0
    method.update_teacher(progress())
    moved = {n: p - before[n] for n, p in method.teacher.backbone.named_parameters()}
    assert all(torch.allclose(m, torch.full_like(m, 0.25)) for m in moved.values())
    assert method.rates(progress()) == {"momentum": 0.75, "views": 1}


def test_without_a_moving_average_the_student_stands_in_for_the_teacher():
    method = mae()
    assert method.teacher is method.student
    assert not [name for name in method.state_dict() if name.startswith("teacher")]
    assert method.rates(progress()) == {"views": 1}


@pytest.mark.parametrize("backbone", BACKBONES)
def test_positions_are_fixed_sines_and_cosines(backbone):
    method = mae(backbone=backbone)
    tables = [method.student.backbone.vit.pos_embed, method.student.head.decoder.pos_embed]
    prefix = method.student.backbone.prefix
    for table in tables:
        assert not table.requires_grad
        assert torch.allclose(table[0], sincos_positions(table.shape[2], (4, 4), prefix=prefix), atol=1e-7)


def test_weights_are_a_function_of_the_seed_and_leave_the_global_stream_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    first, again = mae().state_dict(), mae().state_dict()
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_linear_maps_start_xavier_uniform_without_bias():
    method = mae()
    qkv = method.student.backbone.vit.blocks[0].attn.qkv
    bound = (6 / (24 + 72)) ** 0.5
    assert bound * 0.9 < qkv.weight.abs().max() <= bound
    assert not qkv.bias.any()


@pytest.mark.parametrize(
    ("mask", "locals_", "words"),
    [
        (Mask(), 0, "mask.kind=token: set mask.kind=drop"),
        (Mask(kind="drop", views="student"), 0, "mask.views=student: set mask.views=student_globals"),
        (one_view(), 2, "no use for local crops"),
        (
            Mask(strategy=AttentionStrategy(), kind="drop"),
            0,
            "needs a network that sees the whole crop.*method.target.kind=teacher or frozen",
        ),
    ],
)
def test_masks_and_crops_that_cannot_serve_are_refused_in_a_sentence(mask, locals_, words):
    with pytest.raises(ValueError, match=words):
        MaeMethod(mae().settings, BACKBONES["vit"], mask, crops(locals_=locals_), seed=0)


def test_a_frozen_teacher_with_another_grid_is_refused():
    coarse = FrozenTeacher(network=NETWORK.model_copy(update={"patch_size": 16}))
    with pytest.raises(ValueError, match="2x2 patches, the student into 4x4"):
        mae(target=coarse)


def test_attention_asked_of_a_convvit_is_refused():
    mask = Mask(strategy=AttentionStrategy(), kind="drop", ratio=Constant(value=0.5))
    with pytest.raises(ValueError, match="no class token whose attention could guide a mask"):
        mae(mask, backbone="convvit", target=Teacher())


def test_dino_on_a_convvit_or_with_disjoint_masks_is_refused():
    with pytest.raises(ValueError, match=r"ConvViT has no class token, which method\.kind=dino"):
        build_method(build({"backbone": {"kind": "convvit"}, "mask": {"views": "none"}}))
    config = build(
        {
            "backbone": {"image_size": 32, "patch_size": 8, "dim": 24, "depth": 1, "heads": 2},
            "method": {"kind": "dino", "head": {"out_dim": 16, "hidden_dim": 8, "bottleneck_dim": 8}},
            "mask": {"strategy": {"kind": "disjoint"}},
        }
    )
    with pytest.raises(ValueError, match=r"only method\.kind=mae and dmjd train on"):
        build_method(config).double()(batch(), progress(), RNG)


def test_the_learning_rate_rises_from_zero_and_falls_to_zero_along_a_cosine():
    schedule = IterationCosine(peak=2.0, warmup=0.25)
    values = [schedule(Progress(step, 8, 4.0)) for step in range(8)]
    assert values[:3] == [0.0, 1.0, 2.0]
    assert values[5] == pytest.approx(1.0)
    assert values[7] < values[6] < values[5]
