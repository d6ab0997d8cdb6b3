"""Line charts as inline SVG. Colours are CSS classes, so that a page decides for light and dark."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, isfinite, log10

WIDTH, HEIGHT = 360, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 8, 26
POINTS = 400  # more than the pixels of a chart would not show


@dataclass(frozen=True)
class Line:
    """One curve: values over images seen. Values that are not finite are left out.

    shade: its CSS class, where it is not the number of the curve
    """

    name: str
    images: Sequence[float]
    values: Sequence[float]
    shade: str | None = None

    @property
    def points(self) -> list[tuple[float, float]]:
        """At most POINTS of them, the last one included."""
        pairs = [(x, y) for x, y in zip(self.images, self.values) if isfinite(y)]
        step = max(1, ceil(len(pairs) / POINTS))
        return pairs[::-1][::step][::-1]


@dataclass(frozen=True)
class Chart:
    """Curves in one frame; `level` is a dashed horizontal line with its name."""

    title: str
    lines: Sequence[Line]
    level: tuple[str, float] | None = None
    unit: str = ""
    from_zero: bool = False

    def svg(self) -> str:
        """The chart as an <svg> element, or "" where there is nothing to draw."""
        curves = [(line, line.points) for line in self.lines]
        curves = [(line, points) for line, points in curves if points]
        if not curves:
            return ""
        xs = [x for _, points in curves for x, _ in points]
        ys = [y for _, points in curves for _, y in points] + ([self.level[1]] if self.level else [])
        across = Axis.of([0.0, *xs])
        upward = Axis.of([*ys, 0.0] if self.from_zero else ys)
        parts = [grid(across, upward)]
        if self.level:
            parts.append(_level(self.level, upward))
        for number, (line, points) in enumerate(curves):
            parts.append(_curve(line.name, line.shade or f"c{number}", points, across, upward))
        label = escape(f"{self.title}: {', '.join(line.name for line, _ in curves)}")
        return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'

    @property
    def legend(self) -> list[tuple[int, str, str]]:
        """Number, name and last value of each curve that is drawn."""
        drawn = [(line.name, line.points) for line in self.lines if line.points]
        return [
            (number, name, f"{number_text(points[-1][1])}{self.unit}")
            for number, (name, points) in enumerate(drawn)
        ]


@dataclass(frozen=True)
class Axis:
    """A scale from `low` to `high` with round ticks."""

    low: float
    high: float
    ticks: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float]) -> "Axis":
        """The scale that holds all values."""
        low, high = min(values), max(values)
        if low == high:
            low, high = (low - abs(low) / 2, high + abs(high) / 2) if low else (0.0, 1.0)
        rough = (high - low) / 4
        power = 10.0 ** floor(log10(rough))
        step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
        first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
        return cls(first * step, last * step, tuple(step * i for i in range(first, last + 1)))

    def place(self, value: float) -> float:
        """Where a value lies, 0 to 1."""
        return (value - self.low) / (self.high - self.low)


def number_text(value: float) -> str:
    """A number for people: 12k, 1.5M, 0.035."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if letter == 'k' else size):.3g}{letter}"
    return f"{value:.4g}"


def x_of(share: float) -> float:
    """Where a share of the width lies, in units of the drawing."""
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def y_of(share: float) -> float:
    """Where a share of the height lies."""
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def grid(across: Axis, upward: Axis) -> str:
    """The lines and numbers behind curves or dots."""
    rows = []
    for tick in upward.ticks:
        y = y_of(upward.place(tick))
        rows.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        rows.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{number_text(tick)}</text>')
    for tick in across.ticks:
        x = x_of(across.place(tick))
        anchor = "end" if tick == across.ticks[-1] else "middle"
        rows.append(f'<text x="{x:.1f}" y="{HEIGHT - 9}" text-anchor="{anchor}">{number_text(tick)}</text>')
    return "".join(rows)


def _level(level: tuple[str, float], upward: Axis) -> str:
    y = y_of(upward.place(level[1]))
    words = y + 12 if y < TOP + 14 else y - 4
    return (
        f'<line class="level" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text x="{WIDTH - RIGHT}" y="{words:.1f}" text-anchor="end">{escape(level[0])}</text>'
    )


def _curve(name: str, shade: str, points: list[tuple[float, float]], across: Axis, upward: Axis) -> str:
    places = [(x_of(across.place(x)), y_of(upward.place(y))) for x, y in points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    dots = places if len(places) <= 30 else places[-1:]
    marks = "".join(f'<circle class="{shade}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in dots)
    return f'<polyline class="{shade}" points="{path}"><title>{escape(name)}</title></polyline>{marks}'
