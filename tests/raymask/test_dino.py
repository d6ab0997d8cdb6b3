"""DINO with masks: who is masked, what moves, what is reported."""

from types import SimpleNamespace

import pytest
import torch

from raymask.heads import Head
from raymask.masks import Mask
from raymask.methods import build_method
from raymask.methods.dino import Dino
from raymask.schedules import Constant, Linear
from raymask.streams import Rng
from raymask.vit import Backbone
from tests.raymask.toy import PROTOTYPES, batch, dino, progress

VIEWS = ["none", "student_globals", "student", "student_and_teacher"]
RNG = Rng(seed=1, step=0)


@pytest.fixture
def seen(monkeypatch):
    """What each pass of a backbone was given, in order: (network, pixels on a side, argument names)."""
    from raymask.backbone import VisionBackbone

    calls, forward = [], VisionBackbone.forward

    def record(self, images, **given):
        names = ("hidden", "visible", "drop")
        calls.append((self, images.shape[-1], {name for name in names if given.get(name) is not None}))
        return forward(self, images, **given)

    monkeypatch.setattr(VisionBackbone, "forward", record)
    return calls


@pytest.mark.parametrize("kind", ["token", "drop", "pixel"])
@pytest.mark.parametrize("views", VIEWS)
def test_every_arm_and_kind_of_mask_trains_both_networks(views, kind):
    method = dino(Mask(views=views, kind=kind))
    report = method(batch(), progress(), RNG)
    report["loss"].backward()
    missing = [n for n, p in method.student.named_parameters() if p.requires_grad and p.grad is None]
    assert not missing
    assert all(p.grad is None for p in method.teacher.parameters())
    before = method.teacher.head.mlp[0].weight.clone()
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter += 0.1
    method.update_teacher(progress())
    assert not torch.equal(method.teacher.head.mlp[0].weight, before)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ("none", ""),
        ("student_globals", "s32"),
        ("student", "s32 s16"),
        ("student_and_teacher", "t32 s32 s16"),
    ],
)
def test_masks_go_to_whom_the_arm_names(seen, views, expected):
    method = dino(Mask(views=views))
    method(batch(), progress(), RNG)
    masked = [
        ("t" if network is method.teacher.backbone else "s") + str(size)
        for network, size, given in seen
        if "hidden" in given
    ]
    assert masked == expected.split()


def test_there_is_one_pass_a_resolution_and_only_the_student_drops_paths(seen):
    method = dino()
    method(batch(), progress(), RNG)
    student, teacher = method.student.backbone, method.teacher.backbone
    assert seen == [(teacher, 32, set()), (student, 32, {"drop"}), (student, 16, {"drop"})]


@pytest.mark.parametrize("views", VIEWS)
def test_the_mask_token_exists_only_for_who_is_masked_by_it(views):
    method = dino(Mask(views=views))
    assert (method.student.backbone.mask_token is not None) == (views != "none")
    assert (method.teacher.backbone.mask_token is not None) == (views == "student_and_teacher")
    assert dino(Mask(views=views, kind="drop")).student.backbone.mask_token is None


def test_the_report_says_how_much_was_hidden_and_what_the_monitors_saw():
    report = dino(Mask(ratio=0.5))(batch(), progress(), RNG)
    assert report["mask_ratio"] == 0.5 and report["masks"].dtype == torch.int64
    assert 0 < report["teacher_entropy"] <= report["teacher_spread"] <= torch.tensor(PROTOTYPES).log()
    torch.testing.assert_close(
        report["below_uniform"], torch.tensor(float(PROTOTYPES)).log().double() - report["loss"].detach()
    )
    halves = (2 * report["loss_global"] + 6 * report["loss_local"]) / 8
    torch.testing.assert_close(halves, report["loss"].detach())
    assert not [name for name, value in report.items() if name != "loss" and value.requires_grad]


def test_without_masks_the_report_says_so():
    report = dino()(batch(locals_=0), progress(), RNG)
    assert report["mask_ratio"] == 0 and report["masks"] == 0 and "loss_local" not in report


def test_the_ratio_follows_its_schedule():
    method = dino(Mask(ratio=Linear(start=0.1, end=0.9)))
    hidden = [method(batch(), progress(step), RNG)["mask_ratio"].item() for step in (4, 10, 18)]
    assert hidden == [int(16 * r) / 16 for r in (0.26, 0.5, 0.82)]


def test_the_student_s_temperature_is_a_schedule_too():
    losses = {}
    for name, temperature in {
        "rising": Linear(start=0.1, end=0.3),
        "at its start": Constant(value=0.1),
        "at its middle": Constant(value=0.2),
    }.items():
        method = dino(drop_path=0.0)
        method.settings = method.settings.model_copy(update={"student_temperature": temperature})
        losses[name] = [method(batch(), progress(step), RNG)["loss"].item() for step in (0, 10)]
    assert losses["rising"] == [losses["at its start"][0], losses["at its middle"][1]]
    assert losses["rising"][1] != losses["at its start"][1]


def test_the_step_uses_the_center_of_the_step_before():
    method = dino(drop_path=0.0)
    first = method(batch(), progress(), RNG)["loss"]
    assert torch.equal(first, method(batch(), progress(), RNG)["loss"])
    assert not method.center.value.any()
    method.update_teacher(progress())
    assert method.center.value.any() and not method.center.total.any() and not method.center.rows.any()
    assert method(batch(), progress(), RNG)["loss"] != first


def test_the_loss_depends_on_who_an_image_is_not_on_where_it_lies():
    method = dino(Mask(ratio=0.5), drop_path=0.5)
    whole = batch(4)
    parts = whole.chunks(1)
    expected = method(whole, progress(), RNG)["loss"]
    alone = torch.stack([method(part, progress(), RNG)["loss"] for part in reversed(parts)])
    torch.testing.assert_close(alone.mean(), expected)


def test_the_weights_are_a_function_of_the_config():
    config = SimpleNamespace(
        method=Dino(head=Head(hidden_dim=8, bottleneck_dim=4, out_dim=6), momentum=Constant(value=0.5)),
        backbone=Backbone(image_size=16, patch_size=8, dim=12, heads=2, depth=1),
        mask=Mask(),
        run=SimpleNamespace(seed=3),
    )
    one, other = build_method(config), build_method(config)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    for name, tensor in one.teacher.state_dict().items():
        assert torch.equal(tensor, one.student.state_dict()[name]), name


def test_batch_norm_in_the_heads_sees_the_batch_on_both_sides():
    method = dino(batch_norm=True)
    method(batch(), progress(), RNG)["loss"].backward()
    assert method.teacher.head.training and not method.teacher.backbone.training
    assert method.teacher.head.mlp[1].num_batches_tracked == 1


def test_a_single_crop_is_refused():
    one = batch(locals_=0)
    one.crops["global"] = one.crops["global"][:1]
    with pytest.raises(ValueError, match="at least two global crops"):
        dino()(one, progress(), RNG)
