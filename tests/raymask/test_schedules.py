"""Schedules are pure functions of progress, equal to the official ones."""

import doctest

import pytest
from pydantic import TypeAdapter, ValidationError

from pipelines.settings import Settings
from raymask import schedules
from raymask.progress import Progress
from raymask.schedules import Constant, Cosine, Linear, Piecewise, Ramp, Schedule, Steps, WarmupCosine

ONE_OF_EACH = [
    Constant(value=0.3),
    Linear(start=0.1, end=0.5),
    Cosine(start=0.996, end=1.0),
    Steps(values=(0.1, 0.5, 0.3), at=(0.2, 0.6)),
    Piecewise(points=((0.1, 0.2), (0.5, 0.9), (0.8, 0.4))),
    WarmupCosine(peak=1e-3, end=1e-6, warmup=0.1),
    Ramp(start=0.04, end=0.07, warmup=0.3),
]
adapter = TypeAdapter(Schedule)


def at(step: int, steps: int = 60, steps_per_epoch: float = 6) -> Progress:
    return Progress(step=step, steps=steps, steps_per_epoch=steps_per_epoch)


def test_the_formulas_in_the_docstrings_hold():
    assert doctest.testmod(schedules).failed == 0


@pytest.mark.parametrize("schedule", ONE_OF_EACH, ids=lambda s: s.kind)
def test_every_schedule_survives_the_way_through_its_config(schedule):
    assert adapter.validate_python(adapter.dump_python(schedule, mode="json")) == schedule


@pytest.mark.parametrize("schedule", ONE_OF_EACH, ids=lambda s: s.kind)
def test_every_schedule_stays_within_its_bounds_and_reaches_them(schedule):
    low, high = schedule.bounds()
    values = [schedule(at(step)) for step in range(60)]
    slack = 0.02 * (high - low) + 1e-12
    assert low - 1e-12 <= min(values) <= low + slack and high - slack <= max(values) <= high + 1e-12


def test_a_bare_number_is_a_constant_schedule():
    class Some(Settings):
        ratio: Schedule = 0.5

    assert Some(ratio=0.3).ratio == Constant(value=0.3)
    assert Some().ratio(at(3)) == 0.5


def test_the_warm_up_includes_both_ends_and_the_cosine_stops_short():
    schedule = WarmupCosine(start=0.0, peak=1.0, end=0.1, warmup=0.1)
    assert [schedule(at(step)) for step in (0, 5, 6)] == [0.0, 1.0, 1.0]
    assert 0.1 < schedule(at(59)) < 0.102


def test_a_warm_up_over_the_whole_training_only_rises():
    assert WarmupCosine(peak=1.0, end=0.0, warmup=1.0)(at(59)) == 1.0


def test_a_ramp_keeps_its_value_within_an_epoch():
    ramp = Ramp(start=0.04, end=0.07, warmup=0.3, delay=0.2)
    values = [[ramp(at(6 * epoch + step)) for step in range(6)] for epoch in range(10)]
    assert all(len(set(epoch)) == 1 for epoch in values)
    firsts = [epoch[0] for epoch in values]
    assert firsts[:3] == [0.04] * 3 and firsts[3] == pytest.approx(0.055) and set(firsts[4:]) == {0.07}


def test_steps_change_exactly_where_they_say():
    schedule = Steps(values=(1.0, 2.0), at=(0.5,))
    assert [schedule(at(step)) for step in (29, 30)] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"kind": "steps", "values": [1.0, 2.0], "at": [0.2, 0.4]}, "changes 1 times, but 'at' holds 2"),
        ({"kind": "steps", "values": [1.0, 2.0, 3.0], "at": [0.4, 0.2]}, "must rise"),
        ({"kind": "piecewise", "points": [[0.4, 1.0], [0.4, 2.0]]}, "must rise"),
        ({"kind": "linear", "start": 0.1}, "end"),
        ({"kind": "linear", "start": 0.1, "end": float("nan")}, "finite"),
        ({"kind": "cosin", "start": 0.1, "end": 1.0}, "cosin"),
        (True, "valid"),
    ],
)
def test_a_wrong_schedule_is_refused_with_the_reason(config, sentence):
    with pytest.raises(ValidationError, match=sentence):
        adapter.validate_python(config)
