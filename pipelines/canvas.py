"""Pictures for the device: luma, and chroma at half of its sides as most photographs have it, packed."""

import numpy as np

from pipelines.parts import part
from pipelines.planes import INTERLEAVED, plane_of

# h, w: sides of a picture; its chromas have (h + 1) // 2 x (w + 1) // 2


@part
def bytes_on_canvas(height: int, width: int) -> int:
    """Bytes that a picture takes."""
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


@part
def _copy(plane, out):
    height, width = plane.shape
    for y in range(height):
        out[y * width : (y + 1) * width] = plane[y]


@part
def _halved(plane, across, down, height, width, out):
    """Means over the samples of a plane that fall on each two by two pixels; finer planes get coarser.

    across, down: pixels of the picture that a sample stands for; height, width: of the picture
    """
    rows, columns = (height + 1) // 2, (width + 1) // 2
    tall, wide = plane.shape
    for y in range(rows):
        one, other = plane[min(2 * y // down, tall - 1)], plane[min((2 * y + 1) // down, tall - 1)]
        into = out[y * columns : (y + 1) * columns]
        whole = 0
        if across == 1:
            whole = width // 2
            for x in range(whole):
                left = np.int32(one[2 * x]) + np.int32(other[2 * x])
                into[x] = np.uint8((left + np.int32(one[2 * x + 1]) + np.int32(other[2 * x + 1]) + 2) >> 2)
        elif across == 2:
            whole = columns
            for x in range(whole):
                into[x] = np.uint8((np.int32(one[x]) + np.int32(other[x]) + 1) >> 1)
        for x in range(whole, columns):
            left, right = min(2 * x // across, wide - 1), min((2 * x + 1) // across, wide - 1)
            total = (
                np.int32(one[left]) + np.int32(one[right]) + np.int32(other[left]) + np.int32(other[right])
            )
            into[x] = np.uint8((total + 2) >> 2)


@part
def _place_pixels(pixels, out):
    """Red, green and blue uint8 [h, w, 3] as luma and chroma."""
    height, width = pixels.shape[:2]
    blue, red = np.empty((height, width), np.uint8), np.empty((height, width), np.uint8)
    for y in range(height):
        for x in range(width):
            r, g, b = float(pixels[y, x, 0]), float(pixels[y, x, 1]), float(pixels[y, x, 2])
            luma = 0.299 * r + 0.587 * g + 0.114 * b
            out[y * width + x] = np.uint8(luma + 0.5)
            blue[y, x] = np.uint8(min(max((b - luma) * (0.5 / 0.886) + 128.5, 0.0), 255.0))
            red[y, x] = np.uint8(min(max((r - luma) * (0.5 / 0.701) + 128.5, 0.0), 255.0))
    size, part = height * width, ((height + 1) // 2) * ((width + 1) // 2)
    _halved(blue, 1, 1, height, width, out[size : size + part])
    _halved(red, 1, 1, height, width, out[size + part :])


@part
def place(data: np.ndarray, frame: np.ndarray, out: np.ndarray) -> None:
    """A stored picture (`planes.Stored`) into uint8 [bytes_on_canvas]."""
    height, width = frame[0], frame[1]
    size, part = height * width, ((height + 1) // 2) * ((width + 1) // 2)
    if frame[2] == INTERLEAVED:
        _place_pixels(data[: 3 * size].reshape(height, width, 3), out)
        return
    _copy(plane_of(data, frame, 0), out)
    if frame[2] == 1:
        out[size:] = 128
        return
    across, down = frame[3] // frame[7], frame[4] // frame[8]
    for c in range(2):
        chroma, into = plane_of(data, frame, 1 + c), out[size + c * part : size + (c + 1) * part]
        if across == 2 and down == 2:
            _copy(chroma, into)
        else:
            _halved(chroma, across, down, height, width, into)
