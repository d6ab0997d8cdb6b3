"""Trials as dots over two objectives, with the front of those that no other beats."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from raymask.report.chart import HEIGHT, WIDTH, Axis, grid, x_of, y_of


@dataclass(frozen=True)
class Dot:
    """A trial: its name, its two values, and its CSS class."""

    name: str
    x: float
    y: float
    shade: str


def scatter(title: str, dots: Sequence[Dot], front: Sequence[str]) -> str:
    """The drawing as an <svg> element, or "" where there is no dot; `front` names the dots that it joins."""
    if not dots:
        return ""
    across, upward = Axis.of([dot.x for dot in dots]), Axis.of([dot.y for dot in dots])

    def at(dot: Dot) -> tuple[float, float]:
        return x_of(across.place(dot.x)), y_of(upward.place(dot.y))

    joined = sorted(at(dot) for dot in dots if dot.name in front)
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in joined)
    parts = [grid(across, upward), f'<polyline class="front" points="{path}"/>']
    for dot in dots:
        x, y = at(dot)
        size = 4 if dot.name in front else 3
        parts.append(
            f'<circle class="{dot.shade}" cx="{x:.1f}" cy="{y:.1f}" r="{size}">'
            f"<title>{escape(dot.name)}</title></circle>"
        )
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )
