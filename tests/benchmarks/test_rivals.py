import random
from pathlib import Path

import pytest

from pipelines.crops import Crops, LocalCrops
from tests.benchmarks import loader
from tests.benchmarks._contestant import Contestant, Pass
from tests.benchmarks._rivals import EVERYONE, Rival, why_not
from tests.benchmarks._rivals.rival import box
from tests.benchmarks._rivals.spdl import levels, mixer
from tests.pipelines.pictures import encoded, picture


def test_boxes_lie_within_the_image_and_have_the_share_and_the_shape_that_are_asked_for():
    random.seed(0)
    for group in (Crops(), LocalCrops()):
        for _ in range(200):
            left, top, width, height = box(300, 400, group)
            assert 0 <= left <= 400 - width and 0 <= top <= 300 - height
            assert group.scale[0] * 0.95 < width * height / (300 * 400) <= group.scale[1] * 1.05
            assert group.aspect[0] * 0.95 < width / height < group.aspect[1] * 1.05


def test_ffmpegs_filters_change_nothing_where_nothing_is_drawn():
    assert levels(1.0, 1.0) == "colorlevels=" + ":".join(
        f"{c}imin=0.0000:{c}imax=1.0000:{c}omin=0.0000:{c}omax=1.0000" for c in "rgb"
    )
    found = dict(cell.split("=") for cell in mixer(1.0, 0.0).removeprefix("colorchannelmixer=").split(":"))
    for name, value in found.items():
        assert float(value) == pytest.approx(float(name[0] == name[1]), abs=1e-3)


def test_what_is_not_installed_is_named_with_its_reason_in_the_table():
    absent = Rival("another", ("no_such_loader",), EVERYONE[0].build)
    assert why_not(absent) == "ModuleNotFoundError: No module named 'no_such_loader'"
    found = {loader.OFFICIAL: Pass(core=40.0, wall=39.0, moved=2e6, peak=2**30)}
    last = loader.table(found, {}, {absent.name: why_not(absent)}).splitlines()[-1]
    assert last.startswith("| another | not measured: ModuleNotFoundError")


@pytest.mark.slow
def test_a_contestant_passes_over_images_as_often_as_it_is_asked(tmp_path: Path):
    for number in range(32):
        (tmp_path / f"{number}.jpg").write_bytes(encoded(picture(number, 48, 64)))
    for name in (loader.OFFICIAL, "this loader, cpu"):
        one = Contestant(str(tmp_path), name, threads=0, small=True)
        passes = [one.over(32) for _ in range(2)]
        one.close()
        views = 4 * 3 * (2 * 28**2 + 4 * 12**2)
        assert all(views <= each.moved < views + 100 for each in passes)  # labels and the like are moved, too
        assert all(each.core > 0 and each.wall > 0 for each in passes)
