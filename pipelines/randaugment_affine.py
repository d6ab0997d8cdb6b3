"""Rotation, shear and translation of 8-bit planes, level for level as Pillow's affine transform does them.

Pillow's rules: each pixel of the result is looked up at the place that the matrix names, in double
precision; places outside get the fill colour; neighbours beyond an edge repeat it; levels are truncated. Its
bicubic kernel here has a = -1, unlike the -0.5 that it resizes with.
"""

import math

import numpy as np

from pipelines.parts import part
from pipelines.randaugment import ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X

# c: channels   h, w: sides of a view


@part
def matrix(kind, value, height, width):
    """(a, b, c, d, e, f) of an operation: the source of (x, y) is (a x + b y + c, d x + e y + f)."""
    if kind == ROTATE:
        angle = -math.radians(value)
        a, b = math.cos(angle), math.sin(angle)
        x, y = width / 2.0, height / 2.0
        return a, b, x - a * x - b * y, -b, a, y + b * x - a * y
    if kind == SHEAR_X:
        return 1.0, value, 0.0, 0.0, 1.0, 0.0
    if kind == SHEAR_Y:
        return 1.0, 0.0, 0.0, value, 1.0, 0.0
    if kind == TRANSLATE_X:
        return 1.0, 0.0, value * width, 0.0, 1.0, 0.0
    return 1.0, 0.0, 0.0, 0.0, 1.0, value * height


@part
def _cubic(before, first, second, after, share):
    slope = -before + second
    bend = 2.0 * (before - first) + second - after
    return first + share * (slope + share * (bend + share * (-before + first - second + after)))


@part
def _along(row, x, share, cubic):
    """The value between pixels x and x + 1 of a row uint8 [w]."""
    last = len(row) - 1
    first = float(row[min(max(x, 0), last)])
    if share == 0.0:  # shear and translation along columns: what lies beside has no part
        return first
    second = float(row[min(max(x + 1, 0), last)])
    if not cubic:
        return first + (second - first) * share
    before, after = float(row[min(max(x - 1, 0), last)]), float(row[min(max(x + 2, 0), last)])
    return _cubic(before, first, second, after, share)


@part
def _at(plane, x, y, right, down, cubic):
    """The value of a plane uint8 [h, w] at `right` and `down` from pixel (x, y)."""
    last = len(plane) - 1
    first = _along(plane[min(max(y, 0), last)], x, right, cubic)
    if down == 0.0:  # shear and translation along rows: what lies above and below has no part
        return first
    second = _along(plane[min(max(y + 1, 0), last)], x, right, cubic)
    if not cubic:
        return first + (second - first) * down
    before = _along(plane[min(max(y - 1, 0), last)], x, right, cubic)
    after = _along(plane[min(max(y + 2, 0), last)], x, right, cubic)
    return _cubic(before, first, second, after, down)


@part
def move(levels: np.ndarray, numbers, cubic: bool, fill: np.ndarray) -> None:
    """Applies the affine map with these six `numbers` to uint8 [3, h, w] in place; `fill`: uint8 [3]."""
    a, b, c, d, e, f = numbers
    height, width = levels.shape[1:]
    source = levels.copy()
    for y in range(height):
        for x in range(width):
            place_x = a * (x + 0.5) + b * (y + 0.5) + c
            place_y = d * (x + 0.5) + e * (y + 0.5) + f
            inside = 0.0 <= place_x < width and 0.0 <= place_y < height
            left, top = math.floor(place_x - 0.5), math.floor(place_y - 0.5)
            for channel in range(3):
                if inside:
                    value = _at(source[channel], left, top, place_x - 0.5 - left, place_y - 0.5 - top, cubic)
                    levels[channel, y, x] = np.uint8(np.int32(min(max(value, 0.0), 255.0)))
                else:
                    levels[channel, y, x] = fill[channel]
