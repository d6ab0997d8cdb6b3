"""Pictures for the device: luma, and chroma at half of its sides as most photographs have it, packed."""

import numpy as np
from numba import njit

from pipelines.planes import INTERLEAVED, plane_of

# h, w: sides of a picture; its chromas have (h + 1) // 2 x (w + 1) // 2


@njit(nogil=True)
def bytes_on_canvas(height: int, width: int) -> int:
    """Bytes that a picture takes."""
    return height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)


@njit(nogil=True)
def _copy(plane, out):
    height, width = plane.shape
    for y in range(height):
        out[y * width : (y + 1) * width] = plane[y]


@njit(nogil=True)
def _halved(plane, across, down, height, width, out):
    """Means over the samples of a plane that fall on each two by two pixels; finer planes get coarser."""
    rows, columns = (height + 1) // 2, (width + 1) // 2
    tall, wide = plane.shape
    for y in range(rows):
        for x in range(columns):
            total = 0
            for i in range(2):
                for j in range(2):
                    total += plane[min((2 * y + i) // down, tall - 1), min((2 * x + j) // across, wide - 1)]
            out[y * columns + x] = np.uint8((total + 2) // 4)


@njit(nogil=True)
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


@njit(nogil=True)
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
