"""Brightness, contrast, saturation, hue, grey and solarise on 8-bit planes, as Pillow does them.

Every operation reads and leaves whole levels, as the papers' transforms on 8-bit images do; blends truncate,
as Pillow's do.
"""

import numpy as np
from numba import njit

# planes: uint8 [3, h, w], changed in place


@njit(nogil=True)
def _luma(red, green, blue):
    """ITU-R 601 grey in whole levels (16-bit fixed point)."""
    return (np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@njit(nogil=True)
def _blend(level, grey, factor):
    """Between (factor below 1) or beyond (above 1) `grey` and `level`, clamped and truncated to a level."""
    value = np.float32(grey) + factor * np.float32(np.int32(level) - np.int32(grey))
    return np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@njit(nogil=True)
def blend_with_level(planes, grey, factor):
    """Blends with one grey level: 0 changes brightness, the mean changes contrast."""
    factor = np.float32(factor)
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = _blend(flat[i], grey, factor)


@njit(nogil=True)
def mean_grey(planes) -> int:
    """The mean grey level, rounded to a whole one."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    total = np.int64(0)
    for i in range(len(red)):
        total += _luma(red[i], green[i], blue[i])
    return int(total / len(red) + 0.5)


@njit(nogil=True)
def saturate(planes, factor):
    """Blends each pixel with its own grey."""
    factor = np.float32(factor)
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        grey = _luma(red[i], green[i], blue[i])
        red[i] = _blend(red[i], grey, factor)
        green[i] = _blend(green[i], grey, factor)
        blue[i] = _blend(blue[i], grey, factor)


@njit(nogil=True)
def make_grey(planes):
    """All three planes become the grey."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        red[i] = green[i] = blue[i] = np.uint8(_luma(red[i], green[i], blue[i]))


@njit(nogil=True)
def solarise(planes, threshold):
    """Inverts the levels at or above `threshold`."""
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = 255 - flat[i] if flat[i] >= threshold else flat[i]


@njit(nogil=True)
def _hue_level(red, green, blue, value, span):
    """The hue of a pixel whose largest channel is `value`, in 256 levels a turn; 0 for a grey one."""
    inverse = np.float32(max(span, 1))
    to_red, to_green = np.float32(value - red) / inverse, np.float32(value - green) / inverse
    to_blue = np.float32(value - blue) / inverse
    if value == red:
        sixths = to_blue - to_green
    elif value == green:
        sixths = np.float32(2.0 + to_red - to_blue)
    else:
        sixths = np.float32(4.0 + to_green - to_red)
    turns = sixths / 6.0 + 1.0
    turns = np.float32(turns - 1.0 if turns >= 1.0 else turns)
    return np.int32(turns * 255.0)


@njit(nogil=True)
def _rgb_of(hue, saturation, value):
    """Red, green and blue levels of a pixel in HSV levels."""
    sixths = np.float32(hue) * 6.0 / 255.0
    sector = np.int32(sixths)
    part, share = np.float32(sixths - sector), np.float32(saturation / 255.0)
    low = np.int32(value * (1.0 - share) + 0.5)
    falling = np.int32(value * (1.0 - share * part) + 0.5)
    rising = np.int32(value * (1.0 - share * (1.0 - part)) + 0.5)
    if sector == 0 or sector == 6:
        return value, rising, low
    if sector == 1:
        return falling, value, low
    if sector == 2:
        return low, value, rising
    if sector == 3:
        return low, falling, value
    if sector == 4:
        return rising, low, value
    return value, low, falling


@njit(nogil=True, error_model="numpy")
def shift_hue(planes, shift: float):
    """Turns the hue by a share of a full turn, through HSV of 256 levels, in Pillow's mixed precision."""
    turn = np.int32(np.float64(shift) * 255.0)
    reds, greens, blues = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(reds)):
        red, green, blue = np.int32(reds[i]), np.int32(greens[i]), np.int32(blues[i])
        value = max(red, green, blue)
        span = value - min(red, green, blue)
        hue = (_hue_level(red, green, blue, value, span) + turn) & 255
        saturation = np.int32(np.float32(np.float32(span) / np.float32(value if value > 0 else 1)) * 255.0)
        red, green, blue = _rgb_of(hue, saturation, value)
        reds[i], greens[i], blues[i] = np.uint8(red), np.uint8(green), np.uint8(blue)
