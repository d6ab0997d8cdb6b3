"""Parallel coordinates as inline SVG: an axis for each thing drawn, a line for each trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import isfinite, log10

from raymask.report.chart import number_text

WIDTH, HEIGHT = 1080, 300
SIDE, TOP, BOTTOM = 70, 34, 22
_WIDE = 50  # from this ratio of greatest to least on, an axis of positive numbers is logarithmic

Row = Mapping[str, object]


@dataclass(frozen=True)
class Scale:
    """One axis. `words` in their order, or numbers from `low` to `high`, by their logarithms where `log`."""

    name: str
    words: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0
    log: bool = False

    @classmethod
    def of(cls, name: str, values: Sequence[object]) -> "Scale":
        """The axis that holds these values: numbers, or else words."""
        if not all(_is_number(value) for value in values):
            return cls(name, words=tuple(dict.fromkeys(str(value) for value in values)))
        numbers = [float(value) for value in values]  # type: ignore[arg-type]
        low, high = min(numbers), max(numbers)
        return cls(name, low=low, high=high, log=low > 0 and high / low >= _WIDE)

    def place(self, value: object) -> float:
        """Where a value lies, 0 to 1; in the middle where all are equal."""
        if self.words:
            return self.words.index(str(value)) / (len(self.words) - 1) if len(self.words) > 1 else 0.5
        if self.low == self.high:
            return 0.5
        low, high, at = self.low, self.high, float(value)  # type: ignore[arg-type]
        if self.log:
            low, high, at = log10(low), log10(high), log10(at)
        return (at - low) / (high - low)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places with what stands there."""
        if self.words:
            return [(self.place(word), word) for word in self.words]
        if self.low == self.high:
            return [(0.5, number_text(self.low))]
        middle = (self.low * self.high) ** 0.5 if self.log else (self.low + self.high) / 2
        return [(share, number_text(at)) for share, at in ((0, self.low), (0.5, middle), (1, self.high))]


def coordinates(rows: Sequence[tuple[str, str, Row]], *, last: Sequence[str] = ()) -> str:
    """The drawing as an <svg> element, or "" where there is nothing to draw.

    rows: name, CSS class and values of each trial, those on top last. A trial that has no value on an axis,
    because nothing was drawn there for it, passes it by.
    last: the axes on the right
    """
    found = list(dict.fromkeys(name for _, _, row in rows for name in row))
    names = [*(name for name in found if name not in last), *(name for name in last if name in found)]
    scales = [Scale.of(name, [row[name] for _, _, row in rows if name in row]) for name in names]
    if not rows or len(scales) < 2:
        return ""
    lines = [_line(name, shade, row, scales) for name, shade, row in rows]
    axes = [_axis(place, scale, len(scales)) for place, scale in enumerate(scales)]
    label = escape(f"{len(rows)} trials over {', '.join(names)}")
    drawing = "".join([*lines, *axes])
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{drawing}</svg>'


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _x(place: int, count: int) -> float:
    return SIDE + place * (WIDTH - 2 * SIDE) / (count - 1)


def _y(share: float) -> float:
    return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def _line(name: str, shade: str, row: Row, scales: Sequence[Scale]) -> str:
    points = [
        f"{_x(place, len(scales)):.1f},{_y(scale.place(row[scale.name])):.1f}"
        for place, scale in enumerate(scales)
        if scale.name in row
    ]
    return f'<polyline class="{shade}" points="{" ".join(points)}"><title>{escape(name)}</title></polyline>'


def _axis(place: int, scale: Scale, count: int) -> str:
    x = _x(place, count)
    title = f'<text class="axis" x="{x:.1f}" y="{14 if place % 2 == 0 else 26}" text-anchor="middle">'
    parts = [f'<line class="axis" x1="{x:.1f}" x2="{x:.1f}" y1="{_y(0):.1f}" y2="{_y(1):.1f}"/>']
    parts.append(f"{title}{escape(scale.name)}{' (log)' if scale.log else ''}</text>")
    for share, text in scale.ticks:
        y = _y(share) + 3.5
        parts.append(f'<text class="tick" x="{x + 5:.1f}" y="{y:.1f}">{escape(text)}</text>')
    return "".join(parts)
