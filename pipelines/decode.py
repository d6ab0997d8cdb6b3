"""Bytes to pixels, within limits: what a file claims is checked before anything is decoded.

Pixels are as torchvision's ImageFolder gives them: the EXIF orientation is not applied, transparency is
dropped (the colours under it stay), palettes, grey and CMYK become RGB. The exception is 16-bit grey, which
is scaled to 0..255 where Pillow would clip it. Numbers beyond 16 bits, and fractions, are no picture.
"""

import io
import struct
import zlib
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipelines.png import ends_early

# The last four are seen without decoding; the last three in a tar by the header of a member alone.
Cause = Literal[
    "zero bytes",
    "not an image",
    "broken image",
    "too many pixels",
    "unreadable",
    "too many bytes",
    "duplicate key",
    "unsafe name",
    "link or device",
]

# Formats read by Pillow's own code or a codec library; others (EPS, ...) can start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")

MAX_SCANS = 500  # a progressive JPEG of more is made to keep a decoder busy; honest ones have about ten

# What Pillow's readers raise on damaged files, beside OSError.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
)

# h, w: pixels of the image


class BadSample(Exception):
    """An image that cannot be used, and why: one of a few causes by which they are counted."""

    def __init__(self, cause: Cause):
        super().__init__(cause)
        self.cause = cause


def decode(data: bytes, max_pixels: int) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB pixels of an encoded image, read-only. Raises BadSample."""
    return pixels_of(load(data, max_pixels))


def pixels_of(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """The RGB pixels of a loaded image, read-only. Raises BadSample."""
    try:
        return _rgb(image)
    except _DAMAGE as error:
        raise BadSample("broken image") from error


def load(data: bytes, max_pixels: int) -> Image.Image:
    """An encoded image, decoded, in the mode that its file has. Raises BadSample."""
    if not data:
        raise BadSample("zero bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample("too many pixels") from error
    except _DAMAGE as error:
        raise BadSample("not an image") from error
    if image.width * image.height > max_pixels:
        raise BadSample("too many pixels")
    if image.format == "JPEG" and data.count(b"\xff\xda") > MAX_SCANS:
        raise BadSample("broken image")
    try:
        image.load()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadSample("too many pixels") from error
    except _DAMAGE as error:
        raise BadSample("broken image") from error
    if image.format == "PNG" and _may_end_early(image, data) and ends_early(data):
        raise BadSample("broken image")
    return image


def _may_end_early(image: Image.Image, data: bytes) -> bool:
    """Whether rows may be missing from a loaded PNG, whose last one is zero then, or which is interlaced."""
    last = image.crop((0, image.height - 1, image.width, image.height))
    return data[28] != 0 or not last.tobytes().strip(b"\0")


def _rgb(image: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode == "F":  # of no known range, so that any conversion would be a guess
        raise BadSample("broken image")
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips it at 255
        levels = np.asarray(image).astype(np.float64)
        if levels.min() < 0 or levels.max() > 65535:
            raise BadSample("broken image")
        grey = np.rint(levels / 257).astype(np.uint8)
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
        pixels.flags.writeable = False  # as Pillow's own: one compiled kernel serves both
        return pixels
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # Pillow warns of a direct way to RGB; the colours are the same
    return np.asarray(image.convert("RGB"))
