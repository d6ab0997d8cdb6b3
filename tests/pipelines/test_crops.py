"""The settings of crops: the papers' defaults, single-view recipes, and a sentence for what is impossible."""

import pytest
from pydantic import ValidationError

from pipelines.crops import Crops, LocalCrops, MultiCrop


def test_the_defaults_are_dinos():
    crops = MultiCrop()
    assert (crops.global_crops.count, crops.local_crops.count) == (2, 8)
    assert (crops.global_crops.size, crops.local_crops.size) == (224, 96)
    assert (crops.global_crops.scale, crops.local_crops.scale) == ((0.4, 1.0), (0.05, 0.4))
    assert crops.global_crops.per_view("blur") == (1.0, 0.1)
    assert crops.global_crops.per_view("solarise") == (0.0, 0.2)
    assert crops.local_crops.per_view("blur") == (0.5,) * 8
    assert crops.local_crops.per_view("solarise") == (0.0,) * 8


def test_changing_one_field_of_the_local_crops_keeps_their_other_defaults():
    crops = MultiCrop.model_validate({"local_crops": {"count": 3, "size": 64}})
    assert crops.local_crops == LocalCrops(count=3, size=64)
    assert crops.local_crops.scale == (0.05, 0.4)


def test_a_single_plain_view_can_be_asked_for():
    plain = {"count": 1, "scale": (0.2, 1.0), "jitter": 0, "grey": 0, "blur": 0, "solarise": 0}
    crops = MultiCrop.model_validate({"global_crops": plain, "local_crops": {"count": 0}})
    assert list(crops.groups) == ["global"]


def test_sizes_may_be_rectangular():
    assert (Crops(size=(32, 64)).height, Crops(size=(32, 64)).width) == (32, 64)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"scale": (0.5, 0.2)}, "scale is"),
        ({"scale": (0.0, 1.0)}, "scale is"),
        ({"scale": (0.5, 1.5)}, "scale is"),
        ({"aspect": (0.0, 1.0)}, "aspect is"),
        ({"flip": 1.5}, "flip is 1.5"),
        ({"blur": (0.5,)}, "blur has 1 probabilities for 2 views"),
        ({"solarise": (0.5, -0.1)}, "solarise is"),
        ({"blur_sigma": (2.0, 1.0)}, "blur_sigma is"),
        ({"size": 0}, "size is 0"),
        ({"hue": 0.6}, "hue"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_impossible_value_is_named(change, says):
    with pytest.raises(ValidationError, match=says):
        Crops.model_validate(change)


def test_no_global_view_at_all_is_refused():
    with pytest.raises(ValidationError, match="at least one global view"):
        MultiCrop.model_validate({"global_crops": {"count": 0}})
