"""The Pareto front: the trials that no other beats in one objective without losing in another."""

from collections.abc import Sequence


def front(points: Sequence[Sequence[float]], modes: Sequence[str]) -> list[int]:
    """The places of the points that no other dominates, in their order.

    points: one value an objective; modes: max or min, one an objective

    >>> front([(50.0, 9.0), (40.0, 3.0), (39.0, 5.0)], ("max", "min"))
    [0, 1]
    """
    signs = [1 if mode == "max" else -1 for mode in modes]
    signed = [tuple(sign * value for sign, value in zip(signs, point)) for point in points]
    return [
        place for place, point in enumerate(signed) if not any(_dominates(other, point) for other in signed)
    ]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return all(a >= b for a, b in zip(one, other)) and any(a > b for a, b in zip(one, other))
