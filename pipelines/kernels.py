"""Antialiased bicubic resizing of 8-bit planes, level for level as Pillow does it.

Pillow's rules: the cubic kernel with a = -0.5, widened by the shrink factor; weights normalised to a sum of
one; columns first, then rows, each rounded to whole levels. (Pillow 13 takes rows first where these shrink
much more; the levels in between then round otherwise, and that is all the difference.) Sums are in float32
where Pillow has fixed point: about one value in 50,000 rounds to the next level.

The image is held turned, uint8 [3, width, height]: both passes then run along memory, 16 values at a time.
"""

import numpy as np
from numba import njit

# w, h: sides of the image or crop   c: channels   n: outputs of an axis   k: taps


@njit(nogil=True)
def turned(pixels: np.ndarray) -> np.ndarray:
    """uint8 [h, w, 3] to [3, w, h], a block at a time so that reads and writes both stay in the cache."""
    height, width, channels = pixels.shape
    planes = np.empty((channels, width, height), np.uint8)
    for top in range(0, height, 32):
        bottom = min(top + 32, height)
        for x in range(width):
            for c in range(channels):
                for y in range(top, bottom):
                    planes[c, x, y] = pixels[y, x, c]
    return planes


@njit(nogil=True)
def _cubic(x):
    x = abs(x)
    if x < 1.0:
        return (1.5 * x - 2.5) * x * x + 1.0
    if x < 2.0:
        return ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return 0.0


@njit(nogil=True)
def weights(pixels: int, full: int, start: int, count: int):
    """Resizing `pixels` to `full`: first pixel, taps and weights [n, k] of outputs `start` .. + `count`."""
    scale = pixels / full
    stretch = max(scale, 1.0)
    reach = 2.0 * stretch
    first, taps = np.empty(count, np.int64), np.empty(count, np.int64)
    values = np.zeros((count, int(np.ceil(reach)) * 2 + 1), np.float32)
    exact = np.empty(values.shape[1])
    for i in range(count):
        centre = (start + i + 0.5) * scale
        first[i] = max(0, int(centre - reach + 0.5))
        taps[i] = min(pixels, int(centre + reach + 0.5)) - first[i]
        total = 0.0
        for k in range(taps[i]):
            exact[k] = _cubic((first[i] + k - centre + 0.5) / stretch)
            total += exact[k]
        for k in range(taps[i]):
            values[i, k] = exact[k] / total
    return first, taps, values


@njit(nogil=True, fastmath={"contract"})
def _combine(rows, taps, values, total, out):
    """out [m] = whole levels of the sum of the first `taps` rows of uint8 [*, m], weighted."""
    half, top, zero = np.float32(0.5), np.float32(255), np.float32(0)
    size = len(out)
    for i in range(size):
        total[i] = half
    for k in range(
        0, taps - 3, 4
    ):  # four rows a pass, because loading and storing the sums costs more than summing
        w, x, y, z = values[k], values[k + 1], values[k + 2], values[k + 3]
        p, q, r, s = rows[k], rows[k + 1], rows[k + 2], rows[k + 3]
        for i in range(size):
            near = w * np.float32(p[i]) + x * np.float32(q[i])
            total[i] += near + (y * np.float32(r[i]) + z * np.float32(s[i]))
    for k in range(taps - taps % 4, taps):
        w, p = values[k], rows[k]
        for i in range(size):
            total[i] += w * np.float32(p[i])
    for i in range(size):
        out[i] = np.uint8(np.int32(min(max(total[i], zero), top)))


@njit(nogil=True)
def _transpose(columns, rows):
    """uint8 [w, h] to [h, w], in blocks."""
    width, height = columns.shape
    for left in range(0, width, 32):
        right = min(left + 32, width)
        for y in range(height):
            for x in range(left, right):
                rows[y, x] = columns[x, y]


@njit(nogil=True)
def resize_window(planes, top, left, height, width, full, start, flip, out):
    """The crop of turned planes, resized to `full` (h, w): its window from `start` on, as uint8 [3, n, m].

    With `flip` the window is mirrored, which commutes with resizing.
    """
    out_height, out_width = out.shape[1:]
    first_x, taps_x, values_x = weights(width, full[1], start[1], out_width)
    first_y, taps_y, values_y = weights(height, full[0], start[0], out_height)
    columns, rows = np.empty((out_width, height), np.uint8), np.empty((height, out_width), np.uint8)
    total = np.empty(max(height, out_width), np.float32)
    for c in range(3):
        part = planes[c, left : left + width, top : top + height]
        for x in range(out_width):
            column = columns[out_width - 1 - x if flip else x]
            _combine(part[first_x[x] :], taps_x[x], values_x[x], total, column)
        _transpose(columns, rows)
        for y in range(out_height):
            _combine(rows[first_y[y] :], taps_y[y], values_y[y], total, out[c, y])
