"""Encoded bytes to planes as they are stored: a JPEG's by libjpeg itself, everything else by Pillow.

A picture is kept as flat bytes and a frame of numbers. Luma and chroma stay apart and chroma stays as coarse
as it is in the file, whatever the sampling; only what is no such JPEG becomes red, green and blue. What a
header claims is checked before anything is decoded.
"""

import functools
import threading
from dataclasses import dataclass

import numpy as np

from pipelines import jpeg
from pipelines.decode import BadSample, decode
from pipelines.jpeg_library import Handle, Library, find_library
from pipelines.kernels import turned
from pipelines.parts import inlined, part

# frame[2]: the number of planes (1 grey, 3 luma and chroma), or this: one array of red, green, blue pixels
INTERLEAVED = 0


@dataclass(frozen=True)
class Stored:
    """A decoded picture: uint8 [bytes], and int64 [jpeg.FRAME] that says what they are.

    Valid until the thread that decoded it decodes the next one.
    """

    data: np.ndarray
    frame: np.ndarray

    @property
    def height(self) -> int:
        return int(self.frame[0])

    @property
    def width(self) -> int:
        return int(self.frame[1])


@part
def plane_of(data: np.ndarray, frame: np.ndarray, number: int):
    """The plane `number` of a picture that has planes, uint8 [h, w], without the padding to whole blocks."""
    start = 0
    for c in range(number):
        start += 64 * frame[5 + 4 * c] * frame[6 + 4 * c]
    stride, rows = 8 * frame[5 + 4 * number], 8 * frame[6 + 4 * number]
    across, down = frame[3] // frame[3 + 4 * number], frame[4] // frame[4 + 4 * number]
    height, width = -(-frame[0] // down), -(-frame[1] // across)
    return data[start : start + stride * rows].reshape(rows, stride)[:height, :width]


@inlined
def picture_of(data: np.ndarray, frame: np.ndarray):
    """What `pipelines.kernels` resizes."""
    if frame[2] == INTERLEAVED:
        pixels = data[: 3 * frame[0] * frame[1]].reshape(frame[0], frame[1], 3)
        return turned(pixels[:, :, 0]), turned(pixels[:, :, 1]), turned(pixels[:, :, 2]), 0, 0
    luma = turned(plane_of(data, frame, 0))
    if frame[2] == 1:
        return luma, np.empty((0, 0), np.float32), np.empty((0, 0), np.float32), 1, 1
    across, down = frame[3] // frame[7], frame[4] // frame[8]
    return luma, turned(plane_of(data, frame, 1)), turned(plane_of(data, frame, 2)), across, down


class PlaneDecoder:
    """Decodes for any number of threads; each has a decompressor and memory of its own.

    library: by default the one that this machine has; None leaves everything to Pillow
    """

    def __init__(self, library: Library | None):
        self._library = library
        self._own = threading.local()

    def __call__(self, data: bytes, max_pixels: int) -> Stored:
        """The picture in encoded bytes. Raises BadSample."""
        if self._library is not None and data[:2] == b"\xff\xd8":
            stored = self._jpeg(self._library, np.frombuffer(data, np.uint8), max_pixels)
            if stored is not None:
                return stored
        return of_pixels(decode(data, max_pixels))

    def _jpeg(self, library: Library, data: np.ndarray, max_pixels: int) -> Stored | None:
        """The planes of a JPEG, or None where Pillow is to judge it."""
        from pipelines.native import native

        if not hasattr(self._own, "handle"):
            self._own.handle = Handle(library)
            self._own.frame, self._own.room = np.zeros(jpeg.FRAME, np.int64), np.empty(0, np.uint8)
        handle, frame = self._own.handle, self._own.frame
        kind = native().jpeg_header(handle.calls, handle.struct, handle.messages, data, frame)
        if kind != jpeg.PLANES:
            return None
        if int(frame[0]) * int(frame[1]) > max_pixels:
            raise BadSample("too many pixels")
        size = int(native().jpeg_bytes(frame))
        if len(self._own.room) < size:
            self._own.room = np.empty(size + size // 4, np.uint8)
        room = self._own.room
        given = (handle.calls, handle.struct, handle.messages, handle.damage, handle.rows)
        if not native().jpeg_planes(*given, frame, room):
            raise BadSample("broken image")
        return Stored(room, frame)


def of_pixels(pixels: np.ndarray) -> Stored:
    """Red, green and blue pixels, uint8 [h, w, 3], as a picture."""
    frame = np.zeros(jpeg.FRAME, np.int64)
    frame[:3] = *pixels.shape[:2], INTERLEAVED
    return Stored(
        np.array(pixels).reshape(-1), frame
    )  # a copy that may be written to: one type for the kernels


@functools.cache
def plane_decoder() -> PlaneDecoder:
    """The decoder of this process."""
    return PlaneDecoder(find_library())
