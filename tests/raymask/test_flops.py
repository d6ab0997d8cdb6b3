"""The cost model against published figures and against torch's own count."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from raymask.decoder import Decoder, VisibleBranch
from raymask.flops import (
    BASE,
    LARGE,
    SMALL,
    TINY,
    Cait,
    Decoding,
    ProjectionHead,
    Views,
    Vit,
    dino_step,
    mae_step,
    maskedkd_step,
)
from raymask.heads import Head
from raymask.vit import Backbone

GLOBAL, PATCHES = Views(count=2, patches=196), 196
HUGE = Vit(dim=1280, depth=32, pixels=3 * 14 * 14)
CAIT_SMALL = Cait(dim=384, depth=24, heads=8)


def local(count: int) -> Views:
    return Views(count=count, patches=36)


def near(billions: float, *, digits: int = 2):
    """The figure as published, that is rounded."""
    return pytest.approx(billions * 1e9, abs=0.51 * 10 ** (9 - digits), rel=0.001)


@pytest.mark.parametrize(
    ("vit", "large", "small"), [(TINY, 1.253, 0.208), (SMALL, 4.598, 0.809), (BASE, 17.56, 3.19)]
)
def test_a_forward_pass_costs_the_published_count_at_224_and_96_pixels(vit, large, small):
    assert vit.forward(196) == near(large)
    assert vit.forward(36) == near(small)


@pytest.mark.parametrize(
    ("vit", "head", "locals_", "rows", "teacher", "forward", "total"),
    [
        (SMALL, ProjectionHead(), 10, 0, 9.24, 17.55, 61.9),
        (SMALL, ProjectionHead(), 8, 0, 9.24, 15.89, 56.9),
        (SMALL, ProjectionHead(prototypes=8192, patch_prototypes=8192), 10, 196, 12.19, 20.36, 73.3),
        (TINY, ProjectionHead(), 8, 0, 2.55, 4.39, 15.7),
    ],
)
def test_a_step_of_dino_and_of_ibot_costs_what_was_counted_in_the_official_code(
    vit, head, locals_, rows, teacher, forward, total
):
    cost = dino_step(vit, head, global_crops=GLOBAL, local_crops=local(locals_), patch_rows=rows)
    assert cost.frozen == near(teacher)
    assert cost.forward == near(forward)
    assert cost.total == near(total, digits=1)


def test_a_patch_head_on_masked_tokens_only_saves_a_tenth_of_an_ibot_step():
    head = ProjectionHead(prototypes=8192, patch_prototypes=8192)
    every, masked = (
        dino_step(SMALL, head, global_crops=GLOBAL, local_crops=local(10), patch_rows=rows).total
        for rows in (196, 0.15 * 196)
    )
    assert every - masked == near(7.6, digits=1)


@pytest.mark.parametrize(
    ("visible", "of_a_pass", "of_the_step"),
    [(177, 0.10, 0.046), (138, 0.31, 0.138), (98, 0.52, 0.230), (49, 0.76, 0.339)],
)
def test_dropping_the_students_global_patches_saves_the_published_share(visible, of_a_pass, of_the_step):
    shape = {"global_crops": GLOBAL, "local_crops": local(10)}
    whole = dino_step(SMALL, ProjectionHead(), **shape).total
    part = dino_step(SMALL, ProjectionHead(), **shape, visible=visible).total
    assert 1 - SMALL.forward(visible) / SMALL.forward(196) == pytest.approx(of_a_pass, abs=0.0051)
    assert 1 - part / whole == pytest.approx(of_the_step, abs=0.00051)


@pytest.mark.parametrize(
    ("vit", "published"),
    [
        (SMALL, (4.60, 3.33, 2.25, 1.84, 1.14)),
        (BASE, (17.56, 12.82, 8.71, 7.12, 4.41)),
        (LARGE, (61.55, 44.98, 30.53, 24.94, 15.38)),
        (CAIT_SMALL, (9.33, 6.71, 4.49, 3.64, 2.22)),
    ],
)
def test_a_masked_teacher_costs_what_the_paper_states(vit, published):
    teacher = replace(vit, classes=1000)
    for kept, billions in zip((196, 144, 98, 80, 49), published):
        assert teacher.forward(kept, projected=196) == near(billions)


def test_a_masked_teacher_of_another_grid_costs_what_the_paper_states():
    teacher = replace(HUGE, classes=1000)
    for kept, billions in zip((256, 192, 128, 100, 64), (167.3, 124.7, 82.7, 64.6, 41.4)):
        assert teacher.forward(kept, projected=256) == near(billions, digits=1)


@pytest.mark.parametrize(
    ("student", "teacher", "published"),
    [
        (TINY, SMALL, (8.36, 7.09, 6.01, 4.90)),
        (TINY, BASE, (21.32, 16.58, 12.47, 8.17)),
        (TINY, CAIT_SMALL, (13.09, 10.47, 8.25, 5.98)),
        (SMALL, BASE, (31.36, 26.62, 22.50, 18.21)),
        (BASE, LARGE, (114.25, 97.67, 83.23, 68.07)),
    ],
)
def test_a_step_of_maskedkd_costs_what_the_paper_implies(student, teacher, published):
    pair = (replace(student, classes=1000), replace(teacher, classes=1000))
    for kept, billions in zip((196, 144, 98, 49), published):
        cost = maskedkd_step(*pair, patches=PATCHES, kept=kept, projected=PATCHES)
        assert cost.total == near(billions)


@pytest.mark.parametrize(
    ("vit", "visible", "encoder", "view", "digits"),
    [
        (BASE, 49, 4.41, 9.78, 2),
        (BASE, 78, 6.94, 12.33, 2),
        (LARGE, 49, 15.4, 20.8, 1),
        (LARGE, 78, 24.3, 29.7, 1),
    ],
)
def test_a_masked_view_of_mae_costs_the_official_count(vit, visible, encoder, view, digits):
    cost = mae_step(vit, Decoding(), patches=PATCHES, visible=visible, projected=PATCHES)
    assert vit.forward(visible, projected=PATCHES) == near(encoder, digits=digits)
    assert cost.forward == near(view, digits=digits)
    assert cost.total == 3 * cost.forward


def test_two_masked_views_cost_twice_one_and_the_visible_branch_next_to_nothing():
    once, twice = (
        mae_step(BASE, Decoding(), patches=PATCHES, visible=78, views=views, projected=PATCHES).forward
        for views in (1, 2)
    )
    with_branch = mae_step(
        BASE, Decoding(target=108, visible_branch=True), patches=PATCHES, visible=76, projected=PATCHES
    )
    without = mae_step(BASE, Decoding(target=108), patches=PATCHES, visible=76, projected=PATCHES)
    assert twice == near(24.6, digits=1) and twice == 2 * once
    assert with_branch.forward - without.forward == near(0.07)


def counted(work) -> float:
    """Multiply-accumulates of matrix products as torch counts them, without data."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        work()
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("patches", [True, False])
@pytest.mark.parametrize("visible", [None, 5])
def test_the_model_and_torch_count_the_same_products_of_a_tiny_network(visible, patches):
    shape = {"dim": 24, "depth": 2, "heads": 2, "mlp_ratio": 3.0}
    body = Backbone(image_size=32, patch_size=8, registers=1, **shape).build(seed=0).to("meta")
    head = Head(hidden_dim=16, bottleneck_dim=8, out_dim=40).build(24, seed=0).to("meta")
    vit = Vit(dim=24, depth=2, mlp_ratio=3.0, prefix=2, pixels=3 * 8 * 8)
    images = torch.empty(3, 3, 32, 32, device="meta")
    places = None if visible is None else torch.empty(3, visible, dtype=torch.int64, device="meta")

    expected = 3 * vit.forward(visible or 16, patches=patches)
    assert counted(lambda: body(images, visible=places, patches=patches)) == expected
    rows = torch.empty(3, 24, device="meta")
    projection = ProjectionHead(hidden=16, bottleneck=8, prototypes=40)
    assert counted(lambda: head(rows)) == 3 * projection.forward(24)


def test_the_model_and_torch_count_the_same_products_of_a_tiny_decoder():
    decoder = Decoder(24, 10, grid=(4, 4), prefix=1, dim=16, depth=2, heads=2).to("meta")
    branch = VisibleBranch(24, 10, dim=16).to("meta")
    encoder, visible = Vit(dim=24, depth=2), torch.zeros(3, 5, dtype=torch.int64, device="meta")
    tokens = torch.empty(3, 6, 24, device="meta")
    shape = Decoding(dim=16, depth=2, target=10, visible_branch=True)
    both = counted(lambda: (decoder(tokens, visible), branch(tokens[:, 1:])))
    assert both == 3 * shape.forward(encoder, patches=16, visible=5)
