"""Masks: strategies rank, one function hides the right count, and nothing depends on the batch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raymask.masks import (
    Mask,
    hidden_count,
    hide_pixels,
    hide_top,
    mask_signature,
    random_scores,
    visible_indices,
)
from raymask.progress import Progress
from raymask.streams import Rng, uniforms

START = Progress(step=0, steps=10, steps_per_epoch=5.0)


def draw(mask, count=6, *, views=(0, 1), patches=16, seed=0, progress=START, samples=None):
    samples = torch.arange(count) if samples is None else samples
    epochs = samples // 4
    return mask.draw(
        epochs, samples, views=views, grid=(patches, 1), progress=progress, rng=Rng(seed, progress.step)
    )


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.data())
@settings(max_examples=60, deadline=None)
def test_the_highest_scores_are_hidden_and_ties_go_to_the_lowest_index(scores, data):
    count = data.draw(st.integers(0, len(scores)))
    hidden = hide_top(torch.tensor([scores], dtype=torch.float32), count)[0].tolist()
    ranked = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert {i for i, h in enumerate(hidden) if h} == set(ranked[:count])


def test_every_row_can_hide_a_count_of_its_own():
    scores = random_scores(torch.arange(4), 9)
    counts = torch.tensor([0, 2, 9, 5])
    rows = hide_top(scores, counts)
    assert rows.sum(1).tolist() == counts.tolist()
    assert torch.equal(rows[1], hide_top(scores[1:2], 2)[0])


@pytest.mark.parametrize("count", [-1, 10])
def test_more_than_all_patches_cannot_be_hidden(count):
    with pytest.raises(ValueError, match=f"cannot hide {count} of 9 patches"):
        hide_top(torch.zeros(1, 9), count)


def test_visible_indices_are_the_rest_in_ascending_order():
    hidden = torch.tensor([[True, False, False, True], [False, True, True, False]])
    assert visible_indices(hidden, 2).tolist() == [[1, 2], [0, 3]]
    assert visible_indices(hidden, 2).dtype == torch.int64


@pytest.mark.parametrize(("ratio", "patches", "count"), [(0.3, 196, 58), (0.5, 9, 4), (0.999, 4, 3)])
def test_counts_are_truncated(ratio, patches, count):
    assert hidden_count(ratio, patches) == count


def test_random_masks_hide_every_patch_equally_often():
    hidden = hide_top(random_scores(torch.arange(8000) * 7919, 16), 4).double().mean(0)
    assert (hidden - 0.25).abs().max() < 4.5 * (0.25 * 0.75 / 8000) ** 0.5


def test_hidden_pixels_are_zero_and_the_others_untouched():
    images = torch.arange(1.0, 1 + 2 * 3 * 4 * 6).reshape(2, 3, 4, 6)
    hidden = torch.tensor([[False, True, False, False, False, False], [False] * 5 + [True]])
    got = hide_pixels(images, hidden, (2, 2))
    expected = images.clone()
    expected[0, :, 0:2, 2:4] = 0
    expected[1, :, 2:4, 4:6] = 0
    assert torch.equal(got, expected)


@pytest.mark.parametrize("probability", [1.0, 0.5])
def test_a_batch_in_chunks_or_another_order_has_the_same_masks_and_signature(probability):
    mask = Mask(ratio=0.5, probability=probability)
    whole = draw(mask, 12)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    parts = [draw(mask, samples=order[:5]), draw(mask, samples=order[5:])]
    assert torch.equal(torch.cat([p.hidden for p in parts], 1), whole.hidden[:, order])
    assert sum(p.signature for p in parts) == whole.signature


def test_masks_depend_on_seed_epoch_sample_and_view_and_on_nothing_else():
    mask = Mask(ratio=0.5)
    base = draw(mask, patches=64)
    rows = [tuple(row.tolist()) for view in base.hidden for row in view]
    assert len(set(rows)) == len(rows)  # every image and view has its own
    assert not torch.equal(base.hidden, draw(mask, patches=64, seed=1).hidden)
    assert torch.equal(base.hidden[1:], draw(mask, patches=64, views=(1,)).hidden)
    later = Progress(step=7, steps=10, steps_per_epoch=5.0)
    assert torch.equal(base.hidden, draw(mask, patches=64, progress=later).hidden)  # not on the step
    sample = torch.tensor([3])
    first, second = (
        mask.draw(torch.tensor([e]), sample, views=[0], grid=(8, 8), progress=START, rng=Rng(0, 0))
        for e in (0, 1)
    )
    assert not torch.equal(first.hidden, second.hidden)


def test_the_ratio_follows_its_schedule():
    mask = Mask(ratio={"kind": "linear", "start": 0.0, "end": 0.8})
    counts = [draw(mask, progress=Progress(step, 10, 5.0)).count for step in (0, 5, 9)]
    assert counts == [0, 6, 11]
    assert draw(mask, progress=Progress(5, 10, 5.0)).hidden.sum(-1).unique().tolist() == [6]


IBOTS_LIST = {"ratio": 0.3, "spread": 0.2, "others": [{"ratio": 0.0}, {"ratio": 0.7, "spread": 0.05}]}


def test_every_image_and_view_takes_one_of_the_ratios_and_draws_it_within_its_own_spread():
    mask, images, patches = Mask(**IBOTS_LIST, per="image"), torch.arange(3000), 100
    hidden = draw(mask, patches=patches, samples=images).hidden
    for view in (0, 1):
        keys = Rng(0, 0).per_sample("mask_ratio", images // 4, images, view)
        where, which = (u.tolist() for u in uniforms(keys, 2).unbind(1))
        means, spreads = (0.3, 0.0, 0.7), (0.2, 0.0, 0.05)
        expected = [
            int((means[int(3 * c)] + spreads[int(3 * c)] * (2 * u - 1)) * patches)
            for u, c in zip(where, which)
        ]
        assert hidden[view].sum(1).tolist() == expected
    counts = hidden.sum(-1)
    shares = [(counts == 0), (counts >= 10) & (counts < 50), (counts >= 65) & (counts < 75)]
    assert [share.double().mean().item() for share in shares] == pytest.approx([1 / 3] * 3, abs=0.03)
    assert not torch.equal(counts[0], counts[1])


def test_a_batch_takes_one_of_the_ratios_for_all_its_rows():
    mask, counts = Mask(**IBOTS_LIST), []
    for step in range(300):
        masks = draw(mask, patches=100, progress=Progress(step, 300, 5.0))
        assert masks.hidden.sum(-1).unique().tolist() == [masks.count]
        counts.append(masks.count)
    taken = [sum(low <= count < high for count in counts) for low, high in ((0, 1), (10, 50), (65, 75))]
    assert sum(taken) == 300 and min(taken) > 70


def test_a_share_of_the_rows_is_masked_independently_in_each_view():
    masked = draw(Mask(probability=0.5), 4000).hidden.any(-1).double()
    assert masked.mean(1).tolist() == pytest.approx([0.5, 0.5], abs=0.035)
    assert (masked[0] * masked[1]).mean().item() == pytest.approx(0.25, abs=0.03)


def test_dropping_gives_the_visible_patches_of_every_view():
    masks = draw(Mask(kind="drop", ratio=0.5))
    assert masks.visible().shape == (2, 6, 8)
    assert not masks.hidden.gather(2, masks.visible()).any()


def test_the_signature_tells_masks_owners_and_views_apart():
    samples, epochs = torch.arange(3), torch.zeros(3, dtype=torch.int64)
    hidden = hide_top(random_scores(torch.arange(3), 16), 5)
    base = mask_signature(hidden, epochs, samples)
    others = [
        mask_signature(~hidden, epochs, samples),
        mask_signature(hidden.roll(1, 1), epochs, samples),
        mask_signature(hidden.roll(1, 0), epochs, samples),
        mask_signature(hidden, epochs + 1, samples),
        mask_signature(hidden, epochs, samples + 1),
        mask_signature(hidden, epochs, samples, view=1),
    ]
    assert len({int(s) for s in [base, *others]}) == 7
    assert base.dtype == torch.int64
    assert base.shape == ()


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ({"ratio": 0}, "a mask ratio of 0 leaves nothing visible or nothing hidden"),
        ({"ratio": 1}, "a mask ratio of 1 leaves nothing visible or nothing hidden"),
        ({"ratio": -0.1}, "leaves nothing visible or nothing hidden"),
        ({"ratio": {"kind": "linear", "start": 0.2, "end": 1.0}}, "a mask ratio of 0.2 to 1 leaves"),
        ({"kind": "drop", "probability": 0.5}, "every row must hide the same count"),
        ({"others": [{"ratio": 0.9, "spread": 0.2}]}, "a mask ratio of 0.3 to 1.1 leaves"),
        (
            {"ratio": 0, "others": [{"ratio": 0}]},
            "a mask ratio of 0 leaves nothing visible or nothing hidden",
        ),
        ({"kind": "drop", "per": "image", "others": [{}]}, "mask.others with mask.per=image cannot go with"),
        ({"strategy": {"kind": "disjoint"}, "others": [{}]}, "there are mask.others: leave them out"),
        ({"kind": "blur"}, "'token', 'drop' or 'pixel'"),
    ],
)
def test_policies_that_cannot_work_are_refused(policy, message):
    with pytest.raises(ValueError, match=message):
        Mask(**policy)


def test_a_ratio_too_small_for_the_grid_is_refused():
    with pytest.raises(
        ValueError, match=r"a mask ratio of 0.05 hides none of 16 patches: choose one of at least 0.0625"
    ):
        draw(Mask(ratio=0.05))
