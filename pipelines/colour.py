"""Brightness, contrast, saturation, hue, grey and solarise on 8-bit planes, as Pillow does them.

Every operation reads and leaves whole levels, as the papers' transforms on 8-bit images do; blends truncate,
as Pillow's do.
"""

import numpy as np

from pipelines.parts import inlined, part

# planes: uint8 [3, h, w], changed in place


@inlined
def _luma(red, green, blue):
    """ITU-R 601 grey in whole levels (16-bit fixed point)."""
    return (np.int32(red) * 19595 + np.int32(green) * 38470 + np.int32(blue) * 7471 + 32768) >> 16


@inlined
def _blend(level, grey, factor):
    """Between (factor below 1) or beyond (above 1) `grey` and `level`, clamped and truncated to a level."""
    value = np.float32(grey) + factor * np.float32(np.int32(level) - np.int32(grey))
    return np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@part
def blend_with_level(planes, grey, factor):
    """Blends with one grey level: 0 changes brightness, the mean changes contrast."""
    factor = np.float32(factor)
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = _blend(flat[i], grey, factor)


@part
def mean_grey(planes) -> int:
    """The mean grey level, rounded to a whole one."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    total = np.int64(0)
    for i in range(len(red)):
        total += _luma(red[i], green[i], blue[i])
    return int(total / len(red) + 0.5)


@part
def saturate(planes, factor):
    """Blends each pixel with its own grey."""
    factor = np.float32(factor)
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        grey = _luma(red[i], green[i], blue[i])
        red[i] = _blend(red[i], grey, factor)
        green[i] = _blend(green[i], grey, factor)
        blue[i] = _blend(blue[i], grey, factor)


@part
def make_grey(planes):
    """All three planes become the grey."""
    red, green, blue = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    for i in range(len(red)):
        red[i] = green[i] = blue[i] = np.uint8(_luma(red[i], green[i], blue[i]))


@part
def solarise(planes, threshold):
    """Inverts the levels at or above `threshold`."""
    for c in range(3):
        flat = planes[c].reshape(-1)
        for i in range(len(flat)):
            flat[i] = 255 - flat[i] if flat[i] >= threshold else flat[i]


@inlined
def _hue_sixths(red, green, blue, value, span):
    """The hue of a pixel whose largest channel is `value`, in sixths of a turn, -1 to 5; 0 for a grey one."""
    narrow = np.float32(1) / max(span, np.float32(1))
    from_red = (green - blue) * narrow
    from_green = np.float32(2) + (blue - red) * narrow
    from_blue = np.float32(4) + (red - green) * narrow
    return from_red if value == red else (from_green if value == green else from_blue)


@inlined
def _of_hue(sixths, chroma, value):
    """The level of the channel that has its maximum where `sixths`, taken modulo 6, is 2."""
    place = sixths - np.float32(6) if sixths >= np.float32(6) else sixths
    missing = min(max(min(place, np.float32(4) - place), np.float32(0)), np.float32(1))
    return np.uint8(np.int32(value - chroma * missing + np.float32(0.5)))


@part
def shift_hue(planes, shift: float):
    """Turns the hue by a share of a full turn, through HSV of 256 levels as Pillow does.

    Without branches, in single precision: an odd pixel comes out a level beside Pillow's.
    """
    turn = np.int32(np.float64(shift) * 255.0)
    reds, greens, blues = planes[0].reshape(-1), planes[1].reshape(-1), planes[2].reshape(-1)
    whole, levels, one = np.float32(6), np.float32(255), np.float32(1)
    for i in range(len(reds)):
        red, green, blue = np.float32(reds[i]), np.float32(greens[i]), np.float32(blues[i])
        value = max(max(red, green), blue)
        span = value - min(min(red, green), blue)
        sixths = _hue_sixths(red, green, blue, value, span)
        turns = (sixths + whole if sixths < np.float32(0) else sixths) * (one / whole)
        hue = np.float32((np.int32(turns * levels) + turn) & 255) * (whole / levels)
        saturation = np.float32(np.int32(span / max(value, one) * levels)) * (one / levels)
        chroma = saturation * value
        reds[i] = _of_hue(hue + np.float32(5), chroma, value)
        greens[i] = _of_hue(hue + np.float32(3), chroma, value)
        blues[i] = _of_hue(hue + np.float32(1), chroma, value)
