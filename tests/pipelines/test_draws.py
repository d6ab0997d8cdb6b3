"""What is drawn for a view: torchvision's distributions, inside the image, and a pure function of its key."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import ColorJitter, RandomResizedCrop

from pipelines.crops import Crops, LocalCrops
from pipelines.draws import NEVER, VIEW, rules
from pipelines.native import native
from pipelines.streams import fold, stream

DRAWS = 4000


def drawn(crops: Crops, height: int, width: int, *, count: int = DRAWS, seed: int = 0) -> np.ndarray:
    """VIEW [count, views] of as many samples."""
    table, key = rules(crops), stream(seed, "test")
    views = np.zeros((count, crops.count), VIEW)
    for i in range(count):
        native().draw(np.uint64(fold(key, np.uint64(i))), height, width, table, views[i])
    return views


@pytest.mark.parametrize("crops", [Crops(), LocalCrops(), Crops(scale=(0.9, 1.0), aspect=(0.2, 5.0))])
@pytest.mark.parametrize("size", [(120, 160), (300, 40)])
def test_crops_are_distributed_as_torchvisions(crops, size):
    height, width = size
    ours = drawn(crops, height, width)[:, 0]
    image = torch.empty(3, height, width)
    torch.manual_seed(0)
    draw = RandomResizedCrop.get_params
    theirs = np.array([draw(image, list(crops.scale), list(crops.aspect)) for _ in range(DRAWS)])
    for name, column in zip(("top", "left", "height", "width"), theirs.T):
        got, expected = (np.quantile(values, (0.1, 0.25, 0.5, 0.75, 0.9)) for values in (ours[name], column))
        assert np.abs(got - expected).max() <= 0.03 * max(height, width), name


def test_jitter_is_distributed_as_torchvisions():
    ours = drawn(Crops(jitter=1.0), 50, 50)[:, 0]
    jitter = ColorJitter(0.4, 0.4, 0.2, 0.1)
    torch.manual_seed(0)
    draws = [
        ColorJitter.get_params(jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)
        for _ in range(DRAWS)
    ]
    for column, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
        theirs = np.array([draw[column] for draw in draws])
        wanted = np.quantile(theirs, (0, 0.25, 0.5, 0.75, 1))
        assert np.abs(np.quantile(ours[name], (0, 0.25, 0.5, 0.75, 1)) - wanted).max() < 0.03, name


def test_the_four_parts_of_the_jitter_come_in_every_order_equally_often():
    orders, counts = np.unique(drawn(Crops(jitter=1.0), 50, 50)["order"], return_counts=True)
    digits = (orders[:, None] // 4 ** np.arange(4)) % 4
    assert len(orders) == 24 and (np.sort(digits) == np.arange(4)).all()
    assert np.abs(counts / counts.sum() - 1 / 24).max() < 0.01


def test_each_operation_is_as_frequent_as_its_probability():
    views = drawn(Crops(), 50, 50)
    frequency = {
        "flip": (views["flip"].mean(0), (0.5, 0.5)),
        "jitter": ((views["order"] >= 0).mean(0), (0.8, 0.8)),
        "grey": (views["grey"].mean(0), (0.2, 0.2)),
        "blur": ((views["sigma"] > 0).mean(0), (1.0, 0.1)),
        "solarise": ((views["threshold"] < NEVER).mean(0), (0.0, 0.2)),
    }
    for name, (got, wanted) in frequency.items():
        assert np.abs(got - wanted).max() < 0.03, name
    assert views["sigma"][:, 0].min() >= 0.1 and views["sigma"].max() <= 2.0
    assert abs(views["sigma"][:, 0].mean() - 1.05) < 0.03


@given(
    st.integers(1, 600),
    st.integers(1, 600),
    st.floats(0.01, 1),
    st.floats(0.01, 1),
    st.floats(0.1, 10),
    st.integers(0, 2**64 - 1),
)
@settings(deadline=None, max_examples=200)
def test_a_crop_lies_inside_any_image(height, width, one, other, aspect, key):
    crops = Crops(scale=(min(one, other), max(one, other)), aspect=(min(aspect, 1.0), max(aspect, 1.0)))
    views = np.zeros(2, VIEW)
    native().draw(np.uint64(key), height, width, rules(crops), views)
    assert (views["height"] >= 1).all() and (views["width"] >= 1).all()
    assert (views["top"] >= 0).all() and (views["top"] + views["height"] <= height).all()
    assert (views["left"] >= 0).all() and (views["left"] + views["width"] <= width).all()


def test_views_of_one_image_are_drawn_apart_and_only_from_the_key():
    first, again = (drawn(LocalCrops(), 100, 100, count=5) for _ in range(2))
    assert (first == again).all()
    assert len(np.unique(first[["top", "left", "height", "width"]])) > 35
    assert (drawn(LocalCrops(), 100, 100, count=5, seed=1) != first).any()


def test_more_views_leave_the_first_ones_as_they_are():
    few, many = LocalCrops(count=2), LocalCrops(count=8)
    assert (drawn(few, 90, 90, count=20) == drawn(many, 90, 90, count=20)[:, :2]).all()
