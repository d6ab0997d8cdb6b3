"""Brightness, contrast, saturation, hue, grey and solarise on 8-bit planes, as Pillow does them.

Every operation reads and leaves whole levels, as the papers' transforms on 8-bit images do; blends truncate,
as Pillow's do.
"""

import numpy as np
from numba import njit

# planes: uint8 [3, h, w], changed in place


@njit(nogil=True, cache=True)
def _luma(red, green, blue):
    """ITU-R 601 grey in whole levels (16-bit fixed point)."""
    return (np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@njit(nogil=True, cache=True)
def _blend(level, grey, factor):
    """Between (factor below 1) or beyond (above 1) `grey` and `level`, clamped and truncated to a level."""
    value = np.float32(grey) + factor * np.float32(np.int32(level) - np.int32(grey))
    return np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@njit(nogil=True, cache=True)
def blend_with_level(planes, grey, factor):
    """Blends with one grey level: 0 changes brightness, the mean changes contrast."""
    factor = np.float32(factor)
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = _blend(flat[i], grey, factor)


@njit(nogil=True, cache=True)
def mean_grey(planes) -> int:
    """The mean grey level, rounded to a whole one."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    total = np.int64(0)
    for i in range(len(red)):
        total += _luma(red[i], green[i], blue[i])
    return int(total / len(red) + 0.5)


@njit(nogil=True, cache=True)
def saturate(planes, factor):
    """Blends each pixel with its own grey."""
    factor = np.float32(factor)
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        grey = _luma(red[i], green[i], blue[i])
        red[i] = _blend(red[i], grey, factor)
        green[i] = _blend(green[i], grey, factor)
        blue[i] = _blend(blue[i], grey, factor)


@njit(nogil=True, cache=True)
def make_grey(planes):
    """All three planes become the grey."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        red[i] = green[i] = blue[i] = np.uint8(_luma(red[i], green[i], blue[i]))


@njit(nogil=True, cache=True)
def solarise(planes, threshold):
    """Inverts the levels at or above `threshold`."""
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = 255 - flat[i] if flat[i] >= threshold else flat[i]


@njit(nogil=True, cache=True, error_model="numpy")
def shift_hue(planes, shift):
    """Turns the hue by `shift` of a full turn, through HSV with each part in 256 levels."""
    turn = np.int32(np.float64(shift) * 255.0)
    one, six, full, half = np.float32(1), np.float32(6), np.float32(255), np.float32(0.5)
    reds, greens, blues = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(reds)):
        red, green, blue = np.int32(reds[i]), np.int32(greens[i]), np.int32(blues[i])
        value = max(red, green, blue)
        span = value - min(red, green, blue)
        inverse = one / np.float32(max(span, 1))
        # distances from the largest channel, in spans: one of three sixths of the circle begins at each
        if value == red:
            sixths = np.float32(green - blue) * inverse
        elif value == green:
            sixths = np.float32(2) + np.float32(blue - red) * inverse
        else:
            sixths = np.float32(4) + np.float32(red - green) * inverse
        turns = sixths / six
        turns = turns + one if turns < 0 else turns
        hue = (np.int32(turns * full) + turn) & 255
        saturation = np.float32(np.int32(np.float32(span) / np.float32(max(value, 1)) * full)) / full
        sixths = np.float32(hue) * six / full
        sector = np.int32(sixths)
        part = sixths - np.float32(sector)
        level = np.float32(value)
        low = np.int32(level * (one - saturation) + half)
        falling = np.int32(level * (one - saturation * part) + half)
        rising = np.int32(level * (one - saturation * (one - part)) + half)
        sector = sector % 6
        if sector == 0:
            red, green, blue = value, rising, low
        elif sector == 1:
            red, green, blue = falling, value, low
        elif sector == 2:
            red, green, blue = low, value, rising
        elif sector == 3:
            red, green, blue = low, falling, value
        elif sector == 4:
            red, green, blue = rising, low, value
        else:
            red, green, blue = value, low, falling
        reds[i], greens[i], blues[i] = np.uint8(red), np.uint8(green), np.uint8(blue)
