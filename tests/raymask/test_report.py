"""report.html: complete, self-contained, and honest about what is not there."""

import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
import torch

from raymask.report import write_report
from raymask.report.chart import Axis, Chart, Line, number_text
from raymask.report.curves import _line, _views
from raymask.report.facts import read_facts
from raymask.report.page import _pace
from raymask.report.pictures import heat, levels, masked
from raymask.report.verdict import judge
from tests.raymask.tiny_run import pictures, tiny_run

PARTS = (
    "verdict",
    "tiles",
    "evaluation",
    "curves",
    "views",
    "attention",
    "neighbours",
    "cost",
    "config",
    "environment",
    "bad",
)
UNIFORM = 6.9


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return tiny_run(tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def page(run):
    return write_report(run).read_text()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_there(page, part):
    assert f'id="{part}"' in page


def test_nothing_outside_the_file_is_needed(page):
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert not re.findall(r"https?://|<script|@import|url\(", page)


def test_pictures_show_every_view_and_every_head(page):
    columns = re.findall(r"<th>([^<]+)</th>", page)
    assert {"global 1", "global 2", "local 1", "local 2", "untrained", "trained", "head 1", "head 2"} <= set(
        columns
    )
    assert page.count("<img ") == 16 * 4 + 12 * 5 + 10 * 6


def test_a_run_whose_data_are_gone_still_has_a_report(tmp_path):
    data = pictures(tmp_path / "pictures")
    run = tiny_run(tmp_path, data=data)
    shutil.rmtree(data)
    page = write_report(run).read_text()
    assert "No pictures:" in page
    assert "<polyline" in page


def test_a_run_without_labels_has_a_report(tmp_path):
    page = write_report(tiny_run(tmp_path, data=pictures(tmp_path / "flat", classes=()))).read_text()
    assert "nearest 5" in page
    assert "effective rank" in page


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no run directory"):
        write_report(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs a headless chromium")
def test_a_browser_opens_it_and_finds_its_parts(run, page, tmp_path):
    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path}",
        "--dump-dom",
    ]
    seen = subprocess.run(
        [*command, f"file://{run / 'report.html'}"], capture_output=True, text=True, timeout=120
    )
    for part in PARTS:
        assert f'id="{part}"' in seen.stdout


def _lines(**values):
    return [{"images": 10, "loss": 5.0, **values}]


@pytest.mark.parametrize(
    ("lines", "evaluations", "state", "words"),
    [
        (_lines(teacher_entropy=6.89, below_uniform=0.0), [], "bad", "uniform"),
        (_lines(teacher_entropy=0.1, teacher_spread=0.2, below_uniform=6.0), [], "bad", "one answer"),
        (_lines(teacher_entropy=3.0, teacher_spread=6.0, below_uniform=0.05), [], "watch", "ln K"),
        (
            _lines(teacher_entropy=3.0, below_uniform=2.0),
            [{"images": 1, "eval/effective_rank": 1.2}],
            "bad",
            "directions",
        ),
        (
            _lines(teacher_entropy=3.0, below_uniform=2.0),
            [{"images": 0, "eval/knn20_top1": 50.0}, {"images": 10, "eval/knn20_top1": 40.0}],
            "watch",
            "from 50.0 % at 0 images to 40.0 %",
        ),
        (
            _lines(teacher_entropy=3.0, teacher_spread=6.0, below_uniform=2.0),
            [],
            "good",
            "No sign of collapse",
        ),
        ([], [], "watch", "Nothing was logged"),
    ],
)
def test_the_verdict_says_what_the_monitors_say(lines, evaluations, state, words):
    verdict = judge(lines, evaluations, uniform=UNIFORM)
    assert verdict.state == state
    assert words in verdict.text


def test_methods_without_prototypes_get_a_verdict():
    assert judge(_lines(), [], uniform=None).state == "good"


def test_values_that_were_not_finite_are_left_out_of_curves_and_verdict():
    lines = [{"images": 10, "loss": 5.0, "teacher_entropy": None}, {"images": 20, "loss": 4.0}]
    assert _line("teacher entropy", lines, "teacher_entropy").points == []
    assert judge(lines, [], uniform=UNIFORM).state == "good"


def test_an_axis_holds_its_values_between_round_ticks():
    axis = Axis.of([0.013, 0.98])
    assert axis.low <= 0.013 and axis.high >= 0.98
    assert axis.ticks == pytest.approx([0, 0.25, 0.5, 0.75, 1])
    assert Axis.of([3.0]).place(3.0) == pytest.approx(0.5)


def test_views_a_second_stand_beside_images_where_an_image_has_several(run, tmp_path):
    facts = read_facts(run)
    assert facts.views == 1 and "masked views" not in _pace(facts)
    several = [line | {"views": 3.0, "images_per_s": 50.0} for line in facts.training]
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in several))
    facts = replace(facts, run=tmp_path)
    assert _pace(facts) == "50 (150 masked views)"
    (line,) = _views(facts)
    assert [value for _, value in line.points] == [150.0] * len(several)


def test_a_chart_without_numbers_is_left_out():
    assert Chart("loss", [Line("loss", [1, 2], [float("nan")] * 2)]).svg() == ""


def test_a_long_curve_keeps_its_last_point():
    line = Line("loss", range(10_000), range(10_000))
    assert line.points[-1] == (9999, 9999)
    assert len(line.points) <= 400


@pytest.mark.parametrize(("value", "text"), [(24_000, "24k"), (1_500_000, "1.5M"), (0.25, "0.25"), (0, "0")])
def test_numbers_are_short(value, text):
    assert number_text(value) == text


def test_hidden_patches_are_grey_and_the_rest_is_untouched():
    image = levels(torch.zeros(3, 8, 8), mean=(1.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    shown = masked(image, torch.tensor([True, False, False, False]), patch=(4, 4))
    assert (shown[4:, 4:] == image[4:, 4:]).all() and (shown[:4, 4:] == image[:4, 4:]).all()
    assert abs(int(shown[0, 0, 0]) - int(shown[0, 0, 1])) < 40


def test_heat_is_brightest_where_attention_is():
    image = levels(torch.zeros(3, 8, 8), mean=(0.5, 0.5, 0.5), std=(1.0, 1.0, 1.0))
    shown = heat(image, torch.tensor([0.7, 0.1, 0.1, 0.1]), grid=(2, 2))
    assert shown[0, 0].sum() > shown[7, 7].sum()
