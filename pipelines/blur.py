"""Gaussian blur as Pillow makes it: three box blurs a direction, whose edges count in part (level for level).

An "extended" box of real radius r covers 2 floor(r) + 1 whole pixels and a share of the next one on each side
(Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011).
"""

import math

import numpy as np
from numba import njit

PASSES = 3
ONE = 1 << 24  # weights are fixed point with 24 bits


@njit(nogil=True)
def _box(sigma):
    """Whole radius, weight of a whole pixel, and weight of the partly covered one, of one of the passes.

    In single precision, as in Pillow: the weights decide how levels round.
    """
    variance = np.float32(sigma) * np.float32(sigma) / np.float32(PASSES)
    whole = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    share = np.float32((2 * whole + 1) * (whole * (whole + 1) - 3.0 * variance))
    share = np.float32(share / (6.0 * (variance - (whole + 1) ** 2)))
    width = np.float32(np.float32(whole + share) * np.float32(2) + np.float32(1))
    weight = np.uint32(np.float32(ONE) / width)
    return whole, weight, np.uint32((ONE - (2 * whole + 1) * int(weight)) // 2)


@njit(nogil=True)
def _weigh(total, before, after, weight, edge, out):
    """Whole levels of `total` (the sum of the whole pixels) and the partly covered pixels on either side."""
    for i in range(len(out)):
        ends = np.uint32(before[i]) + np.uint32(after[i])
        out[i] = np.uint8((total[i] * weight + ends * edge + np.uint32(ONE // 2)) >> np.uint32(24))


@njit(nogil=True)
def _set(total, values):
    for i in range(len(total)):
        total[i] = np.uint32(values[i])


@njit(nogil=True)
def _add(total, values):
    for i in range(len(total)):
        total[i] += np.uint32(values[i])


@njit(nogil=True)
def _copy(into, values):
    for i in range(len(into)):
        into[i] = values[i]


@njit(nogil=True)
def _blur_row(row, padded, total, whole, weight, edge):
    """One pass along a row uint8 [n]; pixels beyond the ends repeat the last one."""
    size, pad = len(row), whole + 1
    for i in range(pad):
        padded[i], padded[pad + size + i] = row[0], row[size - 1]
    # slices, because an offset in the index would keep the compiler from vectorising
    _copy(padded[pad : pad + size], row)
    _set(total, padded[1 : 1 + size])
    for k in range(2, 2 * pad):
        _add(total, padded[k : k + size])
    _weigh(total, padded[:size], padded[2 * pad :], weight, edge, row)


@njit(nogil=True)
def _blur_columns(source, total, whole, weight, edge, out):
    """One pass down the columns of uint8 [h, w]; rows beyond the ends repeat the last one."""
    last = len(source) - 1
    for y in range(last + 1):
        _set(total, source[max(y - whole, 0)])
        for k in range(1 - whole, whole + 1):
            _add(total, source[min(max(y + k, 0), last)])
        _weigh(total, source[max(y - whole - 1, 0)], source[min(y + whole + 1, last)], weight, edge, out[y])


@njit(nogil=True)
def blur(planes: np.ndarray, sigma: float) -> None:
    """Blurs uint8 [3, h, w] in place; `sigma` is the standard deviation in pixels, above 0."""
    whole, weight, edge = _box(sigma)
    height, width = planes.shape[1:]
    padded, total = np.empty(width + 2 * whole + 2, np.uint8), np.empty(width, np.uint32)
    other = np.empty((height, width), np.uint8)
    for c in range(3):
        plane = planes[c]
        for y in range(height):
            for _ in range(PASSES):
                _blur_row(plane[y], padded, total, whole, weight, edge)
        _blur_columns(plane, total, whole, weight, edge, other)
        _blur_columns(other, total, whole, weight, edge, plane)
        _blur_columns(plane, total, whole, weight, edge, other)
        for y in range(height):
            _copy(plane[y], other[y])
