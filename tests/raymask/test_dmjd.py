"""DMJD as a method of the loop; its numbers are held by the golden cases."""

import pytest
import torch

from raymask.masks.disjoint import disjoint_order, plan
from raymask.methods.disjoint_views import draw_views
from raymask.optim import Optim
from raymask.schedules import Constant, Linear
from raymask.step import train_step
from raymask.streams import Rng
from raymask.targets import Hog, Pixels
from tests.raymask.autoencoding import BACKBONES, disjoint, dmjd, one_view
from tests.raymask.toy import batch, progress

RNG = Rng(seed=1, step=0)
OPTIM = Optim(
    base_lr=0.01,
    lr_rule="mae",
    warmup=0.0,
    betas=(0.9, 0.95),
    weight_decay=Constant(value=0.05),
    clip=None,
    freeze_last_layer=0,
)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("unit", [1, 2])
def test_a_decoded_image_gives_several_views_that_hide_all_of_it_together(backbone, unit):
    method, seen = dmjd(disjoint(0.75, unit=unit), backbone=backbone), {}
    method.student.backbone.register_forward_pre_hook(
        lambda _, __, given: seen.update(given), with_kwargs=True
    )
    report = method(batch(3, locals_=0), progress(), RNG)
    assert seen["visible"].shape == (2 * 2 * 3, 4)  # two views of two crops of three images
    assert report["mask_ratio"] == 0.75
    assert report["prediction_rate"] == 1.0


@pytest.mark.parametrize("backbone", BACKBONES)
def test_both_branches_learn(backbone):
    method = dmjd(backbone=backbone)
    report = method(batch(locals_=0), progress(), RNG)
    report["loss"].backward()
    assert not [n for n, p in method.student.named_parameters() if p.requires_grad and p.grad is None]
    assert report["loss"].detach() == report["loss_hidden"] + report["loss_visible"]


def naive_losses(method, images, visible, *, views: int) -> tuple[float, float]:
    """The paper's two losses written out, row by row and patch by patch, for HOG targets."""
    size = method.student.backbone.patch_size[0]
    pixels = images.crops["global"].flatten(0, 1).repeat(views, 1, 1, 1)
    target = method.settings.target(pixels, size, mean=method.crops.mean, std=method.crops.std)
    tokens = method.student.backbone(pixels, visible=visible)[0]
    predicted = method.student.head.decoder(tokens, visible)
    seen = method.student.head.visible(tokens[:, method.student.backbone.prefix :])
    hidden, shown = [], []
    for row, places in enumerate(visible.tolist()):
        others = [place for place in range(target.shape[1]) if place not in places]
        hidden += [(predicted[row, place] - target[row, place]).square().mean() for place in others]
        gaps = [(seen[row, slot] - target[row, place]).abs() for slot, place in enumerate(places)]
        shown += [torch.where(gap < 2, gap**2 / 4, gap - 1).mean() for gap in gaps]
    return torch.stack(hidden).mean().item(), torch.stack(shown).mean().item()


@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_losses_of_all_views_are_those_of_the_paper_written_out(backbone):
    method, images, seen = (
        dmjd(disjoint(0.5, views=3), backbone=backbone, target=Hog()),
        batch(3, locals_=0),
        {},
    )
    backbone_ = method.student.backbone
    backbone_.rates = [0.0] * len(backbone_.rates)  # drop path draws anew in a second pass
    hook = backbone_.register_forward_pre_hook(lambda _, __, given: seen.update(given), with_kwargs=True)
    report = method(images, progress(), RNG)
    hook.remove()
    with torch.no_grad():
        hidden, shown = naive_losses(method, images, seen["visible"], views=3)
    assert report["loss_hidden"].item() == pytest.approx(hidden, rel=1e-6)
    assert report["loss_visible"].item() == pytest.approx(shown, rel=1e-6)


def test_theta_weighs_the_visible_branch():
    parts = dmjd()(batch(locals_=0), progress(), RNG)
    report = dmjd(theta=3.0)(batch(locals_=0), progress(), RNG)
    expected = parts["loss_hidden"] + 3 * parts["loss_visible"]
    assert float(report["loss"].detach()) == pytest.approx(float(expected), rel=1e-12)


def test_the_released_pairing_changes_the_visible_loss_alone():
    ours, released = (dmjd(pairing=p)(batch(locals_=0), progress(), RNG) for p in ("aligned", "released"))
    assert ours["loss_hidden"] == released["loss_hidden"]
    assert abs(ours["loss_visible"] - released["loss_visible"]) > 1e-6


def test_the_class_token_takes_part_in_neither_loss():
    method = dmjd(target=Pixels())
    given = method(batch(locals_=0), progress(), RNG)["loss_visible"]
    shapes = []
    method.student.head.visible.register_forward_hook(lambda _, inputs, __: shapes.append(inputs[0].shape))
    method(batch(locals_=0), progress(), RNG)
    assert shapes == [(2 * 2 * 5, 8, 24)]  # 8 of 16 patches, no class token
    assert torch.isfinite(given)


def test_the_first_view_does_not_depend_on_how_many_follow():
    body, images = dmjd().student.backbone, batch(locals_=0)
    two, three = (draw_views(disjoint(views=v), images, body, progress(), RNG).hidden for v in (2, 3))
    assert torch.equal(two[: 2 * 5], three[: 2 * 5])


def test_views_of_a_step_are_new_in_another_epoch():
    body = dmjd().student.backbone
    masks = [
        draw_views(disjoint(), batch(step=s, locals_=0), body, progress(), RNG).hidden for s in (0, 1, 2)
    ]
    assert torch.equal(masks[0], masks[1])  # the toy's epochs are two steps long
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize(("adaptive", "weight"), [(True, 0.8 / 0.5), (False, 1.0)])
def test_the_learning_rate_follows_prediction_rate_over_mask_ratio(adaptive, weight):
    method = dmjd(disjoint(0.5, rate=0.8), adaptive_lr=adaptive)
    images = batch(locals_=0)
    optimiser = OPTIM.build(method.student)
    rates = train_step(method, images, progress(0), RNG, optimiser=optimiser, optim=OPTIM)
    assert rates["lr"] == pytest.approx(0.01 * 5 / 256 * weight)


def test_the_learning_rate_follows_a_ratio_schedule():
    mask = disjoint().model_copy(update={"ratio": Linear(start=0.5, end=0.75)})
    method = dmjd(mask)
    assert method.image_weight(progress(0)) == 2.0
    assert method.image_weight(progress(10)) == 1.6


def test_how_many_views_an_image_has_is_logged():
    assert dmjd(disjoint(0.5, views=3)).rates(progress())["views"] == 3
    assert dmjd(disjoint(0.3)).rates(progress())["views"] == 4  # as many as reach the prediction rate
    assert dmjd(one_view()).rates(progress())["views"] == 1


def test_five_steps_learn_in_chunks_what_they_learn_at_once():
    states = []
    for chunk in (None, 2):
        method = dmjd(backbone="convvit")
        optimiser = OPTIM.build(method.student)
        for step in range(5):
            images, where = batch(locals_=0, step=step), progress(step)
            train_step(method, images, where, Rng(1, step), optimiser=optimiser, optim=OPTIM, chunk=chunk)
        states.append(method.state_dict())
    # Key biases have no gradient but rounding, which Adam turns into whole steps.
    names = [name for name in states[0] if not name.endswith("qkv.bias")]
    assert all(torch.allclose(states[0][name], states[1][name], atol=1e-7) for name in names)


def test_the_loss_of_one_batch_falls_when_it_is_trained_on():
    method = dmjd(backbone="convvit")
    optim = OPTIM.model_copy(update={"base_lr": 0.2})
    optimiser, images, losses = optim.build(method.student), batch(locals_=0), []
    for step in range(12):
        report = train_step(method, images, progress(step), RNG, optimiser=optimiser, optim=optim)
        losses.append(float(report["loss"].detach()))
    assert losses[-1] < 0.9 * losses[0]


def test_under_bfloat16_autocast_the_loss_is_that_of_float32_nearly():
    images = batch(locals_=0, dtype=torch.float32)
    method = dmjd(backbone="convvit").float()
    exact = method(images, progress(), RNG)["loss"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = method(images, progress(), RNG)["loss"]
    assert rough.dtype == torch.float32
    assert float(rough.detach()) == pytest.approx(float(exact.detach()), rel=0.05)


def test_more_views_than_needed_hide_what_was_hidden_before():
    counts = plan(10, 0.5, 1.0, 4)
    assert counts.fresh == (5, 5, 0, 0)
    order = disjoint_order(torch.rand(4, 2, 10, generator=torch.Generator().manual_seed(0)), counts)
    assert order.shape == (4, 2, 10)
    assert (order.sort(dim=2).values == torch.arange(10)).all()


def test_a_single_view_trains_dmjd_too():
    report = dmjd(one_view())(batch(locals_=0), progress(), RNG)
    assert report["prediction_rate"] == 0.75
