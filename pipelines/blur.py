"""Gaussian blur as Pillow makes it: three box blurs a direction, whose edges count in part (level for level).

An "extended" box of real radius r covers 2 floor(r) + 1 whole pixels and a share of the next one on each side
(Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011).
"""

import math

import numpy as np
from numba import njit

PASSES = 3
ONE = 1 << 24  # weights are fixed point with 24 bits


@njit(nogil=True, cache=True)
def _box(sigma):
    """Whole radius, weight of a whole pixel, and weight of the partly covered one, of one of the passes."""
    variance = sigma * sigma / PASSES
    whole = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3.0 * variance)
    share /= 6.0 * (variance - (whole + 1) ** 2)
    weight = np.uint32(ONE / (2.0 * (whole + share) + 1.0))
    return int(whole), weight, np.uint32((ONE - (2 * int(whole) + 1) * int(weight)) // 2)


@njit(nogil=True, cache=True)
def _blur_row(row, padded, total, whole, weight, edge):
    """One pass along a row uint8 [n]; pixels beyond the ends repeat the last one."""
    size, pad = len(row), whole + 1
    padded[:pad] = row[0]
    padded[pad : pad + size] = row
    padded[pad + size : size + 2 * pad] = row[size - 1]
    for i in range(size):
        total[i] = np.uint32(padded[i + 1])
    for k in range(2, 2 * pad):
        for i in range(size):
            total[i] += np.uint32(padded[i + k])
    for i in range(size):
        ends = np.uint32(padded[i]) + np.uint32(padded[i + 2 * pad])
        row[i] = np.uint8((total[i] * weight + ends * edge + np.uint32(ONE // 2)) >> np.uint32(24))


@njit(nogil=True, cache=True)
def _blur_columns(plane, source, total, whole, weight, edge):
    """One pass down the columns of uint8 [h, w]; `source` is room for a copy of it."""
    height, width = plane.shape
    source[:] = plane
    for y in range(height):
        total[:] = 0
        for k in range(-whole, whole + 1):
            row = source[min(max(y + k, 0), height - 1)]
            for x in range(width):
                total[x] += np.uint32(row[x])
        above, below = source[max(y - whole - 1, 0)], source[min(y + whole + 1, height - 1)]
        out = plane[y]
        for x in range(width):
            ends = np.uint32(above[x]) + np.uint32(below[x])
            out[x] = np.uint8((total[x] * weight + ends * edge + np.uint32(ONE // 2)) >> np.uint32(24))


@njit(nogil=True, cache=True)
def blur(planes: np.ndarray, sigma: float) -> None:
    """Blurs uint8 [3, h, w] in place; `sigma` is the standard deviation in pixels, above 0."""
    whole, weight, edge = _box(sigma)
    height, width = planes.shape[1:]
    padded, total = np.empty(width + 2 * whole + 2, np.uint8), np.empty(width, np.uint32)
    source = np.empty((height, width), np.uint8)
    for c in range(3):
        for y in range(height):
            for _ in range(PASSES):
                _blur_row(planes[c, y], padded, total, whole, weight, edge)
        for _ in range(PASSES):
            _blur_columns(planes[c], source, total, whole, weight, edge)
