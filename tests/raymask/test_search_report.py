"""The report of a search: what was tried, what it led to, and nothing that was not measured."""

import json
import re
from html import unescape
from math import cos, pi
from pathlib import Path

import pytest

from raymask.report import write_report
from raymask.report.coordinates import Scale, coordinates
from raymask.report.scatter import Dot, scatter
from raymask.report.search_page import rank_correlation, shades_of
from raymask.report.searched import SHARES, Tried, read_search
from tests.raymask.searches import METRIC, write_search

PARTS = ("question", "about", "tiles", "command", "coordinates", "front", "schedules", "curves", "trials")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search(tmp_path_factory.mktemp("search") / "ratios")


@pytest.fixture(scope="module")
def page(folder: Path) -> str:
    return write_report(folder).read_text()


def part(page: str, name: str) -> str:
    """The element with this id, up to the next heading."""
    return page[page.index(f'id="{name}"') :].split("<h2>")[0]


@pytest.mark.parametrize("name", PARTS)
def test_every_part_is_there(page: str, name: str):
    assert f'id="{name}"' in page


def test_nothing_outside_the_file_is_needed_and_what_trials_say_is_escaped(page: str):
    assert not re.findall(r"https?://|<script|@import|url\(|(?:src|href)=", page)
    assert "&lt;no&gt; such thing" in page and "<no>" not in page


def test_each_trial_is_a_line_over_the_axes_that_mean_something_for_it(page: str):
    drawing = part(page, "coordinates")
    lines = re.findall(r'<polyline class="(\w+)" points="([^"]+)"><title>([^<]+)<', drawing)
    assert len(lines) == 12
    corners = {name.split(":")[0]: len(points.split()) for _, points, name in lines}
    assert corners["t000"] == 6 and corners["t001"] == 7, (
        "shape, start, end, rate, metric, seconds; a guidance"
    )
    assert corners["t002"] == 5, "a constant has no end"
    axes = re.findall(r'class="axis"[^>]*>([^<]+)</text>', drawing)
    assert set(axes[:-2]) == {"ratio_shape", "ratio_start", "ratio_end", "guidance", "lr (log)"}
    assert axes[-2:] == [METRIC, "seconds"]


def test_the_best_trial_is_marked_on_top_and_its_command_is_given(folder: Path, page: str):
    tree = json.loads((folder / "results.json").read_text())
    lines = re.findall(r'<polyline class="(\w+)"[^>]*><title>(\w+)', part(page, "coordinates"))
    assert lines[-1] == ("best", tree["best"]) and [shade for shade, _ in lines].count("best") == 1
    assert tree["command"] in unescape(part(page, "command"))


def test_the_front_joins_the_trials_that_no_other_beats(folder: Path, page: str):
    trials = json.loads((folder / "results.json").read_text())["trials"]
    points = [(t["metrics"][METRIC], t["seconds"]) for t in trials if t["metrics"]]
    kept = [(y, x) for y, x in points if not any(b >= y and a <= x and (b, a) != (y, x) for b, a in points)]
    drawing = part(page, "front")
    (joined,) = re.findall(r'class="front" points="([^"]+)"', drawing)
    assert len(joined.split()) == len(kept) > 1
    assert len(re.findall("<circle", drawing)) == len(points)


def test_schedules_are_drawn_as_they_are_and_constants_beside_them(page: str):
    lines = re.findall(r"<title>(t\d+)", part(page, "schedules"))
    assert sorted(lines) == [f"t{number:03d}" for number in range(12)]
    assert "mask.ratio" in part(page, "schedules") and "mask.strategy.guidance" not in part(page, "schedules")


def test_a_trials_schedules_are_found_wherever_its_values_hold_them():
    strategy = {"kind": "attention", "guidance": {"kind": "cosine", "start": 1.0, "end": 0.0}}
    found = Tried("a", {"mask.strategy": strategy, "mask.ratio": 0.3, "optim.fused": True}).schedules
    assert set(found) == {"mask.strategy.guidance", "mask.ratio"} and set(found["mask.ratio"]) == {0.3}
    expected = [(1 + cos(pi * share)) / 2 for share in SHARES]
    assert found["mask.strategy.guidance"] == pytest.approx(expected)


def test_what_a_population_changed_is_a_staircase_over_the_whole_run(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 50, "progress": 0.5}\n')
    history = [[0, {"mask.ratio": 0.3}], [20, {"mask.ratio": 0.6}], [60, {"mask.ratio": 0.45}]]
    values = Tried("a", {"mask.ratio": 0.45}, history=history, folder=tmp_path).schedules["mask.ratio"]
    assert [values[place] for place in (0, 19, 20, 59, 60, 100)] == [0.3, 0.3, 0.6, 0.6, 0.45, 0.45]


def test_losses_are_drawn_from_the_trials_own_lines(tmp_path: Path):
    folder = write_search(tmp_path / "s", trials=4, failed=False)
    assert "loss over images" not in part(write_report(folder).read_text(), "curves")
    for number in (0, 2):
        run = folder / "trials" / f"t{number:03d}"
        run.mkdir(parents=True)
        lines = [{"step": n, "images": 100 * n, "loss": 2.0 / n} for n in (1, 2, 3)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    losses = part(write_report(folder).read_text(), "curves").split("loss over images")[-1]
    assert sorted(re.findall(r"<title>(t\d+)", losses)) == ["t000", "t002"]


def test_a_trial_without_a_result_is_told_with_its_reason(page: str):
    assert "ValueError: &lt;no&gt; such thing" in part(page, "trials")
    assert re.search(r'<polyline class="none"[^>]*><title>t003<', part(page, "coordinates"))


def test_shades_follow_the_ranks(folder: Path):
    search = read_search(folder)
    shades = shades_of(search)
    ranked = [trial.id for trial in search.ranked]
    assert shades[ranked[0]] == "best" and shades[ranked[1]] == "q4" and shades[ranked[-1]] == "q0"


def test_a_search_with_one_objective_shows_it_over_seconds(tmp_path: Path):
    page = write_report(write_search(tmp_path, against=None)).read_text()
    assert f"{METRIC} over seconds of the device" in part(page, "front")


def test_a_search_that_has_only_begun_has_a_report(tmp_path: Path):
    page = write_report(write_search(tmp_path, trials=0, failed=False)).read_text()
    assert "No trial has come to its end yet." in page and "Nothing was measured yet." in page


def test_results_that_cannot_be_read_are_refused(tmp_path: Path):
    (tmp_path / "results.json").write_text('{"trials": [{}]}')
    with pytest.raises(ValueError, match="is no record of a search"):
        write_report(tmp_path)


def test_rank_correlation_is_spearmans_with_ties():
    assert rank_correlation((1, 2, 3, 4), (10, 200, 3000, 40000)) == pytest.approx(1)
    assert rank_correlation((1, 2, 3, 4), (4, 3, 2, 1)) == pytest.approx(-1)
    assert rank_correlation((1, 2, 2, 4), (1, 3, 2, 4)) == pytest.approx(0.9486833)
    assert rank_correlation((1, 2, 3), (5, 5, 5)) is None


def test_an_axis_is_of_words_of_numbers_or_of_their_logarithms():
    assert Scale.of("a", ["x", "y", "x", "z"]).place("y") == 0.5
    assert Scale.of("a", [1, 3]).place(2) == 0.5 and not Scale.of("a", [1, 3]).log
    rates = Scale.of("a", [1e-4, 1e-2])
    assert rates.log and rates.place(1e-3) == pytest.approx(0.5)
    assert Scale.of("a", [True, False]).words == ("True", "False") and Scale.of("a", [2, 2]).place(2) == 0.5


def test_nothing_to_draw_is_no_drawing():
    assert coordinates([]) == "" and scatter("x", [], []) == ""
    assert "<circle" in scatter("x", [Dot("a", 1.0, 2.0, "q0")], ["a"])
