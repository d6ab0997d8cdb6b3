"""Antialiased bicubic resizing as Pillow's, straight from the planes that an image is stored in.

Pillow's rules: the cubic kernel with a = -0.5, widened by the shrink factor, over the pixels of the crop
alone; weights normalised to a sum of one. Chroma of half resolution is brought to full by libjpeg's own rule
(a triangle: 3/4 of the nearer sample, 1/4 of the next one), not in a pass of its own but within the weights.
Sums are in float32 and rounded once, to the levels at the end, where Pillow rounds after each pass.

Planes are held turned, float32 [width, height]: both passes then run along memory, 16 values at a time.
"""

import numpy as np

from pipelines.parts import contracted, inlined, part

# w, h: sides of the image or crop   n, m: sides of a view   k: taps

# A picture is a tuple (first, second, third, across, down): three turned planes, and by how much the sides of
# the second and third are smaller. across: 0 for red, green and blue; else luma and two chromas, whose
# planes are empty where the image is grey.


@part
def transpose(rows: np.ndarray, columns: np.ndarray) -> None:
    """[h, w] of any type to float32 [w, h], eight by eight: in order it is memory that takes the time."""
    height, width = rows.shape
    tall, wide = height - height % 8, width - width % 8
    for y in range(0, tall, 8):
        for x in range(0, wide, 8):
            source, target = rows[y : y + 8, x : x + 8], columns[x : x + 8, y : y + 8]
            for i in range(8):
                for j in range(8):
                    target[i, j] = np.float32(source[j, i])
    for y in range(height):
        for x in range(wide if y < tall else 0, width):
            columns[x, y] = np.float32(rows[y, x])


@part
def turned(plane: np.ndarray) -> np.ndarray:
    """uint8 [h, w] to float32 [w, h]."""
    out = roomy(plane.shape[1], plane.shape[0])
    transpose(plane, out)
    return out


@inlined
def of_pixels(pixels: np.ndarray):
    """The picture of uint8 [h, w, 3]."""
    return turned(pixels[:, :, 0]), turned(pixels[:, :, 1]), turned(pixels[:, :, 2]), 0, 0


@inlined
def _cubic(x):
    x = abs(x)
    near = (1.5 * x - 2.5) * x * x + 1.0
    far = ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return near if x < 1.0 else (far if x < 2.0 else 0.0)


@inlined
def _window(count, most):
    """Room for the weights of an axis: first pixel and taps [n], and weights [n, k], which are zero."""
    return np.empty(count, np.int64), np.empty(count, np.int64), np.zeros((count, most), np.float32)


@part
def weights(pixels: int, full: int, start: int, count: int):
    """Resizing `pixels` to `full`: first pixel, taps and weights [n, k] of outputs `start` .. + `count`."""
    scale = pixels / full
    stretch = max(scale, 1.0)
    reach = 2.0 * stretch
    first, taps, values = _window(count, int(np.ceil(reach)) * 2 + 5)
    _weigh(pixels, start, scale, reach, first, taps, values)
    return first, taps, values


@contracted
def _weigh(pixels, start, scale, reach, first, taps, values):
    narrow = 2.0 / reach
    for i in range(len(first)):
        centre = (start + i + 0.5) * scale
        begin = max(0, int(centre - reach + 0.5))
        first[i] = begin
        taps[i] = min(pixels, int(centre + reach + 0.5)) - begin
        total = np.float32(0.0)
        row = values[i, : taps[i]]
        offset = begin - centre + 0.5
        for k in range(len(row)):
            row[k] = _cubic((offset + k) * narrow)
        for k in range(len(row)):
            total += row[k]
        for k in range(len(row)):
            row[k] /= total


@part
def _coarser(window, start, factor, pixels, smooth):
    """The same weights over samples of which each stands for `factor` pixels of the whole image.

    window: weights over a crop that begins at pixel `start`; pixels: samples of the axis
    smooth: whether samples are interpolated, two pixels each, or repeated
    """
    first, taps, values = window
    count, most = len(first), values.shape[1] // factor + 7
    begins, lengths, coarse = _window(count, most)
    last = pixels - 1
    for i in range(count):
        low, high = (start + first[i]) // factor, (start + first[i] + taps[i] - 1) // factor
        begin, end = (max(low - 1, 0), min(high + 1, last)) if smooth else (min(low, last), min(high, last))
        begins[i], lengths[i] = begin, end - begin + 1
        row = coarse[i]
        for k in range(taps[i]):
            pixel = start + first[i] + k
            near, value = min(pixel // factor, last), values[i, k]
            if smooth:
                other = min(max(near - 1 + 2 * (pixel % 2), 0), last)
                row[near - begin] += np.float32(0.75) * value
                row[other - begin] += np.float32(0.25) * value
            else:
                row[near - begin] += value
    return begins, lengths, coarse


@contracted
def combine(flat, start, step, taps, values, total):
    """total [n] = the sum of `taps` stretches of float32 `flat`, `step` apart from `start` on, weighted.

    Four at a time, because loading and storing the sums costs more than summing: `values` goes on with zeros
    to a multiple of four, and `flat` lies in memory that holds finite numbers for a stretch beyond its end.
    """
    size = len(total)
    for i in range(size):
        total[i] = np.float32(0)
    for k in range(0, taps, 4):
        w, x, y, z = values[k], values[k + 1], values[k + 2], values[k + 3]
        at = start + k * step
        p, q = flat[at : at + size], flat[at + step : at + step + size]
        r, s = flat[at + 2 * step : at + 2 * step + size], flat[at + 3 * step : at + 3 * step + size]
        for i in range(size):
            total[i] += (w * p[i] + x * q[i]) + (y * r[i] + z * s[i])


@part
def roomy(rows: int, columns: int) -> np.ndarray:
    """Memory for float32 [rows, columns] for `combine`, with a row of zeros beyond its end."""
    memory = np.empty((rows + 1) * columns, np.float32)
    for i in range(rows * columns, len(memory)):
        memory[i] = np.float32(0)
    return memory[: rows * columns].reshape(rows, columns)


@part
def _resize(plane, left, across, top, down, flip, out):
    """A turned plane through the weights of both axes, from pixel (left, top) on, into float32 [n, m]."""
    first_x, taps_x, values_x = across
    first_y, taps_y, values_y = down
    height, width = out.shape
    begin = first_y[0]
    tall = first_y[height - 1] + taps_y[height - 1] - begin
    columns, rows = np.empty((width, tall), np.float32), roomy(tall, width)
    flat, stride = plane.reshape(-1), plane.shape[1]
    for x in range(width):
        combine(
            flat,
            (left + first_x[x]) * stride + top + begin,
            stride,
            taps_x[x],
            values_x[x],
            columns[width - 1 - x if flip else x],
        )
    transpose(columns, rows)
    flat = rows.reshape(-1)
    for y in range(height):
        combine(flat, (first_y[y] - begin) * width, width, taps_y[y], values_y[y], out[y])


@inlined
def resize_window(picture, top, left, height, width, full, start, flip, out):
    """The crop of a picture, resized to `full` (h, w): its window from `start` on, into float32 [3, n, m].

    Red, green and blue, or luma and chroma, as the picture has them. With `flip` the window is mirrored,
    which commutes with resizing.
    """
    across = weights(width, full[1], start[1], out.shape[2])
    down = weights(height, full[0], start[0], out.shape[1])
    _resize(picture[0], left, across, top, down, flip, out[0])
    if picture[1].size == 0:
        for c in range(1, 3):
            for y in range(out.shape[1]):
                for x in range(out.shape[2]):
                    out[c, y, x] = np.float32(128)
        return
    if picture[3] != 0:
        wide, tall = picture[1].shape
        smooth = picture[3] == 1 or wide > 2  # libjpeg repeats samples where a row has so few
        across = _coarser(across, left, picture[3], wide, smooth and picture[3] == 2)
        down = _coarser(down, top, picture[4], tall, smooth and picture[4] == 2)
        left, top = 0, 0  # they begin at the samples of the crop
    _resize(picture[1], left, across, top, down, flip, out[1])
    _resize(picture[2], left, across, top, down, flip, out[2])


@inlined
def _level(value):
    return np.uint8(np.int32(min(max(value + np.float32(0.5), np.float32(0)), np.float32(255))))


@contracted
def to_levels(values, coloured, levels):
    """float32 [3, n, m] to whole levels of red, green and blue; from luma and chroma unless `coloured`."""
    a, b, c = values[0].reshape(-1), values[1].reshape(-1), values[2].reshape(-1)
    red, green, blue = levels[0].reshape(-1), levels[1].reshape(-1), levels[2].reshape(-1)
    half, to_red, to_blue = np.float32(128), np.float32(1.402), np.float32(1.772)
    green_b, green_r = np.float32(-0.344136), np.float32(-0.714136)
    if coloured:
        for i in range(len(a)):
            red[i], green[i], blue[i] = _level(a[i]), _level(b[i]), _level(c[i])
    else:
        for i in range(len(a)):
            u, v = b[i] - half, c[i] - half
            red[i] = _level(a[i] + to_red * v)
            green[i] = _level(a[i] + (green_b * u + green_r * v))
            blue[i] = _level(a[i] + to_blue * u)
