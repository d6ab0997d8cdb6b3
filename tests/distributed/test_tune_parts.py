"""The parts of a search that need no cluster: lineages, fronts, grids, tables, costs."""

import io
import json
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given as drawn
from hypothesis import strategies as st

from raymask.config import build, load, to_tree
from raymask.distributed.counting import Cost, count
from raymask.distributed.found import command_of, preset_of, write_preset
from raymask.distributed.grid import grid
from raymask.distributed.lineage import as_schedules, extended
from raymask.distributed.objectives import resolve
from raymask.distributed.pareto import front
from raymask.distributed.results import Record, Results
from raymask.distributed.search import parse
from raymask.distributed.share import share_out
from raymask.distributed.space import Space, Trial, Values
from raymask.distributed.table import Table, rows
from raymask.distributed.tune import summary
from raymask.flops import Decoding, Vit, mae_step
from raymask.overrides import parse as words
from raymask.progress import Progress
from raymask.schedules import Steps
from raymask.standing import described
from tests.distributed.searching import given
from tests.raymask.tiny_run import RECIPE

NUMBERS = st.floats(0.0, 1.0)


@drawn(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=8))
def test_nothing_on_the_front_is_beaten_and_all_else_is(points):
    kept = front(points, ("max", "min"))
    beats = [
        any(a[0] >= b[0] and a[1] <= b[1] and a != b for a in points) for b in points
    ]  # a != b: better in one of the two
    assert kept == [place for place, beaten in enumerate(beats) if not beaten]


@drawn(st.dictionaries(st.integers(1, 29), st.sampled_from([0.2, 0.3, 0.5]), max_size=6))
def test_a_lineage_as_a_schedule_has_at_every_step_what_held_then(changes):
    history: list = extended([], 0, {"a": 0.1})
    for step, value in sorted(changes.items()):
        history = extended(history, step, {"a": value})
    found = as_schedules(history, steps=30)["a"]
    for step in range(30):
        held = [value for at, value in [(0, 0.1), *sorted(changes.items())] if at <= step][-1]
        schedule = Steps(**found)(Progress(step, 30, 7.5)) if isinstance(found, dict) else found
        assert schedule == held


def test_a_trial_that_copies_another_twice_at_one_step_has_the_last_settings():
    history = extended([[0, {"a": 0.1}], [5, {"a": 0.2}], [10, {"a": 0.3}]], 5, {"a": 0.4})
    assert history == [[0, {"a": 0.1}], [5, {"a": 0.4}]]


def conditional(trial: Trial) -> Values:
    if trial.suggest_categorical("kind", ["none", "some"]) == "none":
        return {"kind": "none"}
    return {
        "kind": "some",
        "many": trial.suggest_int("many", 1, 3),
        "share": trial.suggest_float("share", 0, 1),
    }


def space(suggest) -> Space:
    return Space("own", "what?", suggest, (), "eval/knn20_top1", "none", {}, {}, "")


def test_a_grid_walks_every_branch_of_a_conditional_space():
    points = grid(space(conditional), trials=10)
    assert points[0] == {"kind": "none"}
    below = {(point["many"], point["share"]) for point in points[1:]}
    assert below == {(many, share) for many in (1, 2, 3) for share in (0.0, 0.5, 1.0)}
    with pytest.raises(ValueError, match="more than 3 points"):
        grid(space(conditional), trials=3)


@pytest.mark.parametrize("trials", [1, 2, 3, 7])
def test_a_grid_of_one_number_has_as_many_values_as_trials(trials: int):
    one = space(lambda trial: {"x": trial.suggest_float("x", 0.1, 1.0, log=True)})
    if trials == 1:
        with pytest.raises(ValueError, match="more than 1 points"):
            grid(one, trials=1)
    else:
        found = [point["x"] for point in grid(one, trials=trials)]
        assert len(found) == trials and found[0] == 0.1 and found[-1] == 1.0
        assert all(b / a == pytest.approx(10 ** (1 / (trials - 1))) for a, b in pairwise(found))


def test_the_loss_may_judge_what_does_not_change_it():
    assert resolve("loss", None, ["optim.base_lr"]) == ("loss", "min")
    with pytest.raises(ValueError, match=r"cannot judge method\.keep\.ratio"):
        resolve("loss", None, ["method.keep.ratio"])
    assert resolve("lidar", None, ["mask.ratio"]) == ("eval/lidar", "max")


def test_words_go_to_the_search_or_to_its_trials():
    search, changes = parse("mask_ratio", ["preset=mae", "budget=9", "data=a", "run.seed=3", "seed=1"])
    assert (search.budget, search.seed, search.trials) == (9, 1, 16)
    assert changes == ["data=a", "run.seed=3"]


def results(folder: Path) -> Results:
    found = Results(folder, {"metric": "eval/knn20_top1", "mode": "max"}, [("eval/knn20_top1", "max")])
    for number, score in enumerate([40.0, 60.0, 50.0]):
        found.records[f"t{number:03d}"] = Record(
            f"t{number:03d}", {"mask.ratio": 0.3}, state="done", curve=[[100, score]], images=100
        )
    return found


def test_results_come_back_as_they_were_written(tmp_path: Path):
    before = results(tmp_path)
    before.write()
    after = Results(tmp_path, before.about, before.objectives)
    after.recall()
    assert after.records == before.records
    tree = json.loads((tmp_path / "results.json").read_text())
    assert tree["best"] == "t001" and tree["front"] == ["t001"]


def test_trials_that_reach_the_same_are_named_together_and_the_first_of_them_is_the_best(tmp_path: Path):
    found = results(tmp_path)
    best = found.best()
    assert best is not None and best.id == "t001" and len(summary(found, best, tmp_path)) == 4
    found.records["t002"].curve = [[100, 60.0]]
    assert found.best() is best
    assert summary(found, best, tmp_path)[1].startswith("t001, t002 reached that very value")


def test_the_table_has_six_columns_and_fits_the_terminal(tmp_path: Path):
    found = results(tmp_path)
    lines = rows(found, width=60)
    assert lines[0].split() == ["trial", "state", "images", "knn20_top1", "seconds", "settings"]
    assert [line.split()[0] for line in lines[1:]] == ["t001", "t002", "t000"]
    found.records["t003"] = Record("t003", {"mask.ratio": {"kind": "steps", "values": [0.1] * 90}})
    assert max(map(len, rows(found, width=60))) == 60
    assert Table(found, total=5).headline().startswith("3/5 trials, 1 running, best 60 (t001)")


class Screen(io.StringIO):
    """A stdout that somebody looks at."""

    def isatty(self) -> bool:
        return True


def test_a_table_on_a_terminal_takes_the_place_of_the_one_before(tmp_path: Path, monkeypatch):
    screen, table = Screen(), Table(results(tmp_path), total=5)
    monkeypatch.setattr("sys.stdout", screen)
    table.show(last=True)
    first = screen.getvalue()
    table.show()  # at once again: too early
    assert screen.getvalue() == first
    table.show(last=True)
    lines = first.count("\n")
    assert lines == 5 and screen.getvalue()[len(first) :].startswith(f"\x1b[{lines}A\x1b[J3/5 trials")


def test_a_search_that_was_stopped_shows_no_trial_as_running_and_says_how_to_go_on(tmp_path: Path, capsys):
    found = results(tmp_path)
    found.records["t001"].state = found.records["t002"].state = "running"
    table = Table(found, total=5)
    table.end(asked=True)
    said = capsys.readouterr().out
    assert "running" not in said and said.startswith("1/5 trials, 2 stopped, best 40 (t000)")
    shown = {line.split()[0]: line.split()[1] for line in said.splitlines()[2:5]}
    assert shown == {"t000": "done", "t001": "stopped", "t002": "stopped"}
    assert said.splitlines()[-1] == f"t001, t002 go on with 'raymask resume {tmp_path}'"
    assert found.records["t001"].state == "running", "results.json knows that it has not ended"


def test_numbers_of_settings_have_four_digits_for_people_and_all_in_files(tmp_path: Path):
    found = results(tmp_path)
    found.records["t001"].values = found.records["t001"].params = {"mask.ratio": 0.30187498123456789}
    (line,) = [line for line in rows(found, width=100) if line.startswith("t001")]
    assert line.endswith("mask.ratio=0.3019")
    found.write()
    (tmp_path / "search.yaml").write_text("search: {trials: 3}")
    assert "best: t001  eval/knn20_top1 60  mask.ratio 0.3019" in described(tmp_path, "stopped")
    kept = json.loads((tmp_path / "results.json").read_text())["trials"][1]
    assert kept["values"] == {"mask.ratio": 0.30187498123456789}


def test_without_a_terminal_a_line_comes_now_and_then(tmp_path: Path, capsys):
    table = Table(results(tmp_path), total=5)
    table.show()
    assert capsys.readouterr().out == ""
    table.shown -= 31
    table.show()
    assert capsys.readouterr().out == "3/5 trials, best 60 (t001), 0:00\n"


def test_what_was_found_trains_the_same_config_again(tmp_path: Path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(RECIPE)
    masks = ["mask.ratio=0.42", "mask.probability=0.7", "mask.kind=pixel", "mask.strategy={kind: block}"]
    changed = words([*masks, "optim.weight_decay={kind: linear, start: 0, end: 1}"])
    for preset in (str(recipe), "attmask-hint-laptop"):
        tree = to_tree(load(preset))
        config = build({**tree, **{key: {**tree[key], **changed[key]} for key in changed}})
        write_preset(tmp_path / "best.yaml", preset_of(config, preset=preset, about={}))
        again = to_tree(load(str(tmp_path / "best.yaml")))
        assert {**again, "run": None} == {**to_tree(config), "run": None}
        command = command_of(config, preset=preset)
        assert "mask.ratio=0.42" in command and "mask.kind=pixel" in command


def test_counted_products_are_those_of_the_model_of_the_arithmetic(tmp_path: Path):
    given(tmp_path)
    tiny = ["data.crops.global_crops.size=16", "backbone.image_size=16", "backbone.patch_size=4"]
    tiny += [
        "backbone.dim=32",
        "backbone.depth=2",
        "backbone.heads=2",
        "train.steps=8",
        "train.global_batch=8",
    ]
    tiny += ["method.decoder={dim: 16, depth: 1, heads: 2}", f"data={tmp_path / 'pictures'}"]
    found = count(load("mae-laptop", tiny))
    model = mae_step(Vit(32, 2, pixels=48), Decoding(16, 1, target=48), patches=16, visible=4)
    assert found.frozen == (0.0,)
    assert found.total == (pytest.approx(model.total, rel=1e-6),)


def test_a_schedule_is_counted_as_far_as_it_went():
    cost = Cost(frozen=(1.0, 1.0, 3.0, 3.0), total=(2.0, 2.0, 6.0, 6.0))
    assert cost.until(0.5, 10) == {"flops": 20.0, "teacher_flops": 10.0}
    assert cost.until(1.0, 20) == {"flops": 80.0, "teacher_flops": 40.0}


@pytest.mark.parametrize(
    ("nodes", "changes", "at_once", "resources"),
    [
        ([{"CPU": 4}], [], 4, {"cpu": 1}),
        ([{"CPU": 4}], ["cluster.cpus=2"], 2, {"cpu": 2}),
        ([{"CPU": 3}, {"CPU": 3}], ["cluster.cpus=2"], 2, {"cpu": 2}),
        ([{"CPU": 16, "GPU": 2}], [], 2, {"cpu": 8, "gpu": 1}),
        ([{"CPU": 16, "GPU": 2}], ["cluster.gpus=0.5"], 4, {"cpu": 4, "gpu": 0.5}),
        ([{"CPU": 4}], ["workers=2", "cluster.cpus=1"], 2, {"node:__internal_head__": 0.001}),
    ],
)
def test_trials_share_what_each_node_holds(nodes, changes, at_once, resources):
    share = share_out(load("mae-laptop", changes), nodes, at_once=None, trials=8)
    assert (share.at_once, share.resources) == (at_once, resources)
    assert share_out(load("mae-laptop", changes), nodes, at_once=1, trials=8).at_once == 1


def test_a_cluster_that_holds_no_trial_is_refused():
    with pytest.raises(ValueError, match="no node of the cluster has them"):
        share_out(load("mae-laptop", ["cluster.cpus=8"]), [{"CPU": 4}], at_once=None, trials=8)


def test_a_draw_that_makes_no_config_fails_by_itself(tmp_path: Path):
    from raymask.distributed.inquiry import settle
    from raymask.distributed.roster import Roster
    from raymask.distributed.share import Share

    def odd(trial: Trial) -> Values:
        ratio = trial.suggest_float("ratio", 0.1, 0.9)
        return {"mask.ratio": ratio if all(abs(ratio - bad) > 0.1 for bad in wrong) else 1.5}

    wrong: list[float] = []
    search, changes = parse("own", given(tmp_path, "budget=960", "trials=4", "search=grid"))
    inquiry = settle(search, load(search.preset, changes), space(odd))
    inquiry.folder.mkdir()
    found = Results(inquiry.folder, {"mode": "max"}, inquiry.objectives)
    wrong.append(0.3666)  # from here on
    roster = Roster(inquiry, found, Share({}, 1, 1.0))
    assert [config["trial"] for config in iter(roster.begin, None)] == ["t000", "t002", "t003"]
    assert found.records["t001"].state == "failed"
    assert "leaves nothing visible" in str(found.records["t001"].error)
