"""Schedules: pure functions of how far the training is. Temperatures, momentum, mask ratio, guidance, ...

A schedule is its own configuration: `kind` names it, and a bare number means `constant`. Time is counted in
fractions of the training, so that a schedule keeps its shape when the run gets longer.

In the formulas, f is the share of the training that is done, `step / steps`, in [0, 1).
"""

from itertools import pairwise
from math import cos, pi
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from pipelines.settings import Settings
from raymask.progress import Progress

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Value = Annotated[float, Field(allow_inf_nan=False)]


class Constant(Settings):
    """`value`, always.

    >>> Constant(value=0.3)(Progress(step=5, steps=10, steps_per_epoch=5))
    0.3
    """

    kind: Literal["constant"] = "constant"
    value: Value

    def __call__(self, progress: Progress) -> float:
        return self.value

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return self.value, self.value


class Linear(Settings):
    """start + (end - start) * f

    >>> Linear(start=0.0, end=1.0)(Progress(step=5, steps=10, steps_per_epoch=5))
    0.5
    """

    kind: Literal["linear"] = "linear"
    start: Value
    end: Value

    def __call__(self, progress: Progress) -> float:
        return self.start + (self.end - self.start) * progress.fraction

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.end), max(self.start, self.end)


class Cosine(Settings):
    """Half a cosine: end + (start - end) * (1 + cos(pi * f)) / 2 (DINO's momentum and weight decay).

    f never reaches 1, so the last value is just short of `end`.

    >>> Cosine(start=0.04, end=0.4)(Progress(step=5, steps=10, steps_per_epoch=5))
    0.22
    """

    kind: Literal["cosine"] = "cosine"
    start: Value
    end: Value

    def __call__(self, progress: Progress) -> float:
        return self.end + 0.5 * (self.start - self.end) * (1 + cos(pi * progress.step / progress.steps))

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.end), max(self.start, self.end)


class Steps(Settings):
    """values[i], where i counts the entries of `at` (shares of the training, rising) that are not beyond f.

    >>> Steps(values=(0.1, 0.2, 0.3), at=(0.25, 0.5))(Progress(step=3, steps=10, steps_per_epoch=5))
    0.2
    """

    kind: Literal["steps"] = "steps"
    values: tuple[Value, ...] = Field(min_length=1)
    at: tuple[Fraction, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Steps":
        if len(self.at) != len(self.values) - 1:
            raise ValueError(
                f"a schedule of {len(self.values)} steps changes {len(self.values) - 1} times, "
                f"but 'at' holds {len(self.at)} fractions of the training"
            )
        _check_rising(self.at)
        return self

    def __call__(self, progress: Progress) -> float:
        return self.values[sum(at <= progress.fraction for at in self.at)]

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.values), max(self.values)


class Piecewise(Settings):
    """Straight lines through `points` (f, value), f rising; constant before the first and after the last.

    >>> Piecewise(points=((0.0, 1.0), (0.5, 2.0)))(Progress(step=2, steps=8, steps_per_epoch=4))
    1.5
    """

    kind: Literal["piecewise"] = "piecewise"
    points: tuple[tuple[Fraction, Value], ...] = Field(min_length=1)

    @field_validator("points")
    @classmethod
    def _rises(cls, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
        _check_rising([at for at, _ in points])
        return points

    def __call__(self, progress: Progress) -> float:
        done = progress.fraction
        for (left, low), (right, high) in pairwise(self.points):
            if left <= done < right:
                return low + (high - low) * (done - left) / (right - left)
        return self.points[0][1] if done < self.points[0][0] else self.points[-1][1]

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        values = [value for _, value in self.points]
        return min(values), max(values)


class WarmupCosine(Settings):
    """A straight line from `start` to `peak`, then half a cosine to `end`: w = round(warmup * steps),

        step <  w: start + (peak - start) * step / (w - 1)
        step >= w: end + (peak - end) * (1 + cos(pi * (step - w) / (steps - w))) / 2

    Both ends of the line are in it, as in the official DINO code: step 0 has `start`, and the peak occurs
    twice, at the last step of the line and at the first of the cosine. The last value is just short of `end`.

    >>> schedule = WarmupCosine(peak=1.0, end=0.0, warmup=0.3)
    >>> [schedule(Progress(step=i, steps=10, steps_per_epoch=5)) for i in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """

    kind: Literal["warmup_cosine"] = "warmup_cosine"
    start: Value = 0.0
    peak: Value
    end: Value
    warmup: Fraction = 0.1

    def __call__(self, progress: Progress) -> float:
        warmup = round(self.warmup * progress.steps)
        if progress.step < warmup:
            return self.start + (self.peak - self.start) * progress.step / max(1, warmup - 1)
        done = (progress.step - warmup) / (progress.steps - warmup)
        return self.end + 0.5 * (self.peak - self.end) * (1 + cos(pi * done))

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.peak, self.end), max(self.start, self.peak, self.end)


class Ramp(Settings):
    """DINO's teacher temperature: one value an epoch, `start` to `end` over the first epochs, then `end`.

    With d = round(delay * epochs) and w = round(warmup * epochs), epoch e (from 0) has
        e < d:      start
        e < d + w:  start + (end - start) * (e - d) / (w - 1)    (both ends included)
        otherwise:  end
    iBOT delays its patch temperature to the epoch at which its patch objective starts.

    >>> ramp = Ramp(start=0.0, end=1.0, warmup=0.6)
    >>> [ramp(Progress(step=i, steps=5, steps_per_epoch=1)) for i in range(5)]
    [0.0, 0.5, 1.0, 1.0, 1.0]
    """

    kind: Literal["ramp"] = "ramp"
    start: Value
    end: Value
    warmup: Fraction = 0.0
    delay: Fraction = 0.0

    def __call__(self, progress: Progress) -> float:
        epoch = progress.epoch - round(self.delay * progress.epochs)
        warmup = round(self.warmup * progress.epochs)
        if epoch < 0:
            return self.start
        if epoch < warmup:
            return self.start + (self.end - self.start) * epoch / max(1, warmup - 1)
        return self.end

    def bounds(self) -> tuple[float, float]:
        """The least and the greatest value the schedule can take."""
        return min(self.start, self.end), max(self.start, self.end)


def _check_rising(fractions: tuple[float, ...] | list[float]) -> None:
    if any(b <= a for a, b in pairwise(fractions)):
        raise ValueError(f"the fractions of the training must rise, but are {', '.join(map(str, fractions))}")


def _number_is_constant(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return {"kind": "constant", "value": value}
    if not isinstance(value, dict | Settings):
        raise ValueError(
            f"{value!r} is neither a number nor a schedule: give a number, or a kind and its settings, "
            "such as {kind: linear, start: 0.1, end: 0.5}"
        )
    return value


Schedule = Annotated[
    Annotated[
        Constant | Linear | Cosine | Steps | Piecewise | WarmupCosine | Ramp, Field(discriminator="kind")
    ],
    BeforeValidator(_number_is_constant),
]


def _is_a_share(schedule: Schedule) -> Schedule:
    low, high = schedule.bounds()
    if not 0 <= low <= high <= 1:
        raise ValueError(f"goes from {low:g} to {high:g}, but a share lies between 0 and 1")
    return schedule


def _is_above_zero(schedule: Schedule) -> Schedule:
    low, high = schedule.bounds()
    if low <= 0:
        raise ValueError(f"goes from {low:g} to {high:g}, but a temperature lies above 0")
    return schedule


Share = Annotated[Schedule, AfterValidator(_is_a_share)]
Temperature = Annotated[Schedule, AfterValidator(_is_above_zero)]
