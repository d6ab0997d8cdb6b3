"""Gaussian blur with the kernel that Pillow's has: three box blurs a direction, as one.

An "extended" box of real radius r covers 2 floor(r) + 1 whole pixels and a share of the next one on each side
(Gwosdek et al., "Theoretical foundations of Gaussian convolution by extended box filtering", SSVM 2011).
Three of them, one after the other, are one symmetric kernel of few taps. Pillow rounds to whole levels and
repeats the edge anew after each box, we once a direction: values differ by half a level on average.
"""

import math

import numpy as np

from pipelines.kernels import combine, roomy
from pipelines.parts import inlined, part

PASSES = 3


@inlined
def box(sigma: float):
    """One of the three passes: whole radius, weight of a whole pixel, and that of the partly covered one."""
    variance = sigma * sigma / PASSES
    whole = math.floor((math.sqrt(12.0 * variance + 1.0) - 1.0) / 2.0)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3.0 * variance)
    share /= 6.0 * (variance - (whole + 1) * (whole + 1))
    width = 2 * (whole + share) + 1
    return whole, 1.0 / width, share / width


@inlined
def kernel(sigma: float) -> np.ndarray:
    """float32 [odd + 3]: what the three passes are together; sums to one. Then three zeros, for `combine`."""
    whole, weight, edge = box(sigma)
    reach = whole + 1
    taps, other = np.zeros(2 * PASSES * reach + 4, np.float32), np.zeros(2 * PASSES * reach + 4, np.float32)
    taps[0] = 1
    for turn in range(PASSES):
        for i in range(2 * (turn + 1) * reach + 1):
            total = 0.0
            for j in range(2 * reach + 1):
                if i - j >= 0:
                    total += (edge if j == 0 or j == 2 * reach else weight) * taps[i - j]
            other[i] = total
        taps, other = other, taps
    return taps


@inlined
def _blur_rows(plane, taps, values, padded, out):
    """uint8 [h, w] along its rows into float32 [h + taps - 1, w], whose outer rows repeat the edges."""
    height, width = plane.shape
    reach = taps // 2
    for y in range(height):
        row = plane[y]
        for x in range(reach):
            padded[x] = np.float32(row[0])
        for x in range(reach + width, len(padded)):
            padded[x] = np.float32(row[width - 1])
        middle = padded[reach : reach + width]
        for x in range(width):
            middle[x] = np.float32(row[x])
        combine(padded, 0, 1, taps, values, out[reach + y])
    for y in range(reach):  # value by value: numba takes seconds to compile an assignment of arrays
        for x in range(width):
            out[y, x] = out[reach, x]
            out[height + reach + y, x] = out[reach + height - 1, x]


@part
def blur(planes: np.ndarray, sigma: float) -> None:
    """Blurs uint8 [3, h, w] in place; `sigma` is the standard deviation in pixels, above 0."""
    values = kernel(sigma)
    taps, height, width = len(values) - 3, planes.shape[1], planes.shape[2]
    rows, padded = roomy(height + taps - 1, width), np.empty(width + taps + 2, np.float32)
    total, half = np.empty(width, np.float32), np.float32(0.5)
    flat = rows.reshape(-1)
    for c in range(3):
        _blur_rows(planes[c], taps, values, padded, rows)
        for y in range(height):
            combine(flat, y * width, width, taps, values, total)
            row = planes[c, y]
            for x in range(width):
                row[x] = np.uint8(np.int32(total[x] + half))
