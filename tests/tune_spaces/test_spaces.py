"""Every space draws what the config accepts, on every preset it is meant for."""

from collections.abc import Iterator

import optuna
import pytest

from raymask.config import load, to_tree
from raymask.distributed.grid import grid
from raymask.distributed.lineage import as_schedules
from raymask.distributed.objectives import resolve
from raymask.distributed.proposals import Proposer
from raymask.distributed.space import configure, open_space
from raymask.distributed.spaces import names

CASES = [(name, preset) for name in names() for preset in open_space(name).presets]
MOVED = [(name, preset) for name, preset in CASES if open_space(name).mutations]
SEARCHED = ["mask_ratio", "guidance", "ratio_schedule", "guidance_schedule", "strategy"]
SEARCHED += ["maskedkd_budget", "dmjd_views", "optimiser"]


@pytest.fixture(scope="module")
def trees() -> dict[str, dict]:
    return {preset: to_tree(load(preset)) for preset in {preset for _, preset in CASES}}


def drawn(name: str, many: int) -> Iterator[dict]:
    proposer = Proposer(open_space(name), kind="random", directions=["max"], seed=0, trials=many)
    for number in range(many):
        asked = proposer.ask(str(number))
        assert asked is not None
        yield asked[1]


def test_each_question_has_a_file():
    assert names() == sorted(SEARCHED)


@pytest.mark.parametrize(("name", "preset"), CASES)
def test_fifty_draws_make_valid_configs(name: str, preset: str, trees: dict[str, dict]):
    space = open_space(name)
    base = to_tree(configure(trees[preset], space.fixed, space=name))
    configs = [configure(base, values, space=name) for values in drawn(name, 50)]
    assert len({str(config) for config in configs}) == 50


@pytest.mark.parametrize(("name", "preset"), MOVED)
def test_a_population_moves_what_is_a_schedule(name: str, preset: str, trees: dict[str, dict]):
    space = open_space(name)
    low, high = (dict(zip(space.mutations, values)) for values in zip(*space.mutations.values()))
    values = as_schedules([[0, low], [3, high]], steps=10)
    base = to_tree(configure(trees[preset], space.fixed, space=name))
    config = to_tree(configure(base, values, space=name))
    for path in space.mutations:
        below = config
        for key in path.split("."):
            below = below[key]
        assert below == {"kind": "steps", "values": [low[path], high[path]], "at": [0.3]}


@pytest.mark.parametrize("name", names())
def test_a_space_says_its_question_and_a_metric_that_exists(name: str):
    space = open_space(name)
    assert "?" in space.question.splitlines()[0]
    assert resolve(space.metric, None, [])[1] == "max"


@pytest.mark.parametrize("name", names())
def test_a_grid_has_every_choice_and_no_more_points_than_trials(name: str):
    points = grid(open_space(name), trials=60)
    assert 1 < len(points) <= 60
    assert len({str(point) for point in points}) == len(points)


def test_conditional_draws_appear_only_under_their_condition():
    for values in drawn("strategy", 60):
        chosen = values["mask.strategy"]
        assert ("guidance" in chosen) == (chosen["kind"] == "attention")
        assert not chosen.get("reveal_pool") or chosen["prefer"] == "high"


def test_optuna_learns_where_the_best_is():
    proposer = Proposer(open_space("mask_ratio"), kind="optuna", directions=["max"], seed=0, trials=40)
    tried = []
    for number in range(40):
        asked = proposer.ask(str(number))
        assert asked is not None
        tried.append(asked[1]["mask.ratio"])
        proposer.tell(str(number), [-abs(tried[-1] - 0.6)])
    late = tried[-15:]
    assert sum(abs(ratio - 0.6) < 0.1 for ratio in late) > len(late) / 2


def test_trials_of_before_are_recalled_with_their_places():
    space = open_space("strategy")
    first = Proposer(space, kind="optuna", directions=["max"], seed=0, trials=8)
    asked = [first.ask(str(number)) for number in range(4)]
    again = Proposer(space, kind="optuna", directions=["max"], seed=0, trials=8, known=4)
    for number, found in enumerate(asked):
        assert found is not None
        again.recall(str(number), found[0])
        again.tell(str(number), [float(number)] if number else None)
    states = [trial.state for trial in again.study.trials]
    assert states == [optuna.trial.TrialState.FAIL, *[optuna.trial.TrialState.COMPLETE] * 3]
    assert [trial.params for trial in again.study.trials] == [found[0] for found in asked if found]
