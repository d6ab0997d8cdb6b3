"""RandAugment's operations on 8-bit planes, as Pillow's ImageOps and ImageEnhance do them."""

import numpy as np

from pipelines.colour import blend_with_level, mean_grey, saturate
from pipelines.parts import part
from pipelines.randaugment import (
    AUTOCONTRAST,
    BRIGHTNESS,
    COLOUR,
    CONTRAST,
    EQUALISE,
    INVERT,
    NOTHING,
    POSTERISE,
    SHARPNESS,
    SOLARISE,
    SOLARISE_ADD,
)
from pipelines.randaugment_affine import matrix, move

# levels: uint8 [3, h, w], changed in place


@part
def _stretched(counts, table):
    """The table that takes the darkest level that occurs to 0 and the brightest to 255."""
    low, high = 0, 255
    while low < 255 and counts[low] == 0:
        low += 1
    while high > 0 and counts[high] == 0:
        high -= 1
    if high > low:
        scale = 255.0 / (high - low)
        offset = -low * scale
        for i in range(256):
            table[i] = min(max(int(i * scale + offset), 0), 255)


@part
def _equalised(counts, table):
    """The table after which all levels occur about equally often."""
    last = 255
    while last > 0 and counts[last] == 0:
        last -= 1
    step = (counts.sum() - counts[last]) // 255
    if step == 0:  # a single level, or too few pixels of others
        return
    total = step // 2
    for i in range(256):
        table[i] = min(total // step, 255)
        total += counts[i]


@part
def _fixed(kind, value, table):
    """The table of an operation that does not look at the image."""
    for i in range(256):
        if kind == INVERT or (kind == SOLARISE and i >= value):
            table[i] = 255 - i
        elif kind == POSTERISE:  # no bits left is black, which Pillow refuses since version 11
            table[i] = i >> (8 - value) << (8 - value)
        elif kind == SOLARISE_ADD and i < 128:
            table[i] = min(255, i + value)


@part
def _look_up(levels, kind, value):
    """The operations that give each level of a channel another one."""
    counts, table = np.empty(256, np.int64), np.empty(256, np.int64)
    for c in range(3):
        flat = levels[c].reshape(-1)
        for i in range(256):
            counts[i], table[i] = 0, i
        if kind in (AUTOCONTRAST, EQUALISE):
            for i in range(len(flat)):
                counts[flat[i]] += 1
        if kind == AUTOCONTRAST:
            _stretched(counts, table)
        elif kind == EQUALISE:
            _equalised(counts, table)
        else:
            _fixed(kind, value, table)
        for i in range(len(flat)):
            flat[i] = np.uint8(table[flat[i]])


@part
def _sharpen(levels, factor):
    """Blends with a 3 x 3 smoothing (its middle weighs 5, the others 1); pixels of the border stay."""
    height, width = levels.shape[1:]
    one, five = np.float32(1 / 13), np.float32(5 / 13)
    factor = np.float32(factor)
    for c in range(3):
        source = levels[c].copy()
        for y in range(1, height - 1):
            above, row, below, out = source[y - 1], source[y], source[y + 1], levels[c, y]
            for x in range(1, width - 1):
                smooth = np.float32(0.5)
                smooth += (
                    np.float32(below[x - 1]) * one
                    + np.float32(below[x]) * one
                    + np.float32(below[x + 1]) * one
                )
                smooth += (
                    np.float32(row[x - 1]) * one + np.float32(row[x]) * five + np.float32(row[x + 1]) * one
                )
                smooth += (
                    np.float32(above[x - 1]) * one
                    + np.float32(above[x]) * one
                    + np.float32(above[x + 1]) * one
                )
                grey = np.int32(smooth)
                value = np.float32(grey) + factor * np.float32(np.int32(row[x]) - grey)
                out[x] = np.uint8(np.int32(min(max(value, np.float32(0)), np.float32(255))))


@part
def augment(levels: np.ndarray, operation: np.record, fill: np.ndarray) -> None:
    """Does one drawn OPERATION to `levels`; `fill` (uint8 [3]) is the colour of what it uncovers."""
    kind, value = operation.kind, operation.value
    if kind == NOTHING:
        return
    if kind == COLOUR:
        saturate(levels, value)
    elif kind in (CONTRAST, BRIGHTNESS):
        blend_with_level(levels, mean_grey(levels) if kind == CONTRAST else 0, value)
    elif kind == SHARPNESS:
        _sharpen(levels, value)
    elif kind <= INVERT or POSTERISE <= kind <= SOLARISE_ADD:
        _look_up(levels, kind, int(value))
    else:
        numbers = matrix(kind, float(value), levels.shape[1], levels.shape[2])
        move(levels, numbers, operation.cubic != 0, fill)
