"""From a file's bytes to the bytes that are stored: the same ones, unless there is a reason."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipelines.decode import decode

# h, w: pixels

QUALITY = 90


def prepare(data: bytes, *, max_side: int | None, max_pixels: int) -> tuple[bytes, str]:
    """What to store of an image, and the extension of its format. Raises BadSample if it does not decode.

    A JPEG, PNG or WebP keeps its bytes, whatever its file was called. A long side above `max_side` is brought
    down to it, as a baseline 4:2:0 JPEG; the pixels lie as `decode` sees them (orientation tags are neither
    applied nor kept). What is in another format becomes a lossless PNG.
    """
    pixels = decode(data, max_pixels)
    if max_side is not None and max(pixels.shape[:2]) > max_side:
        return _shrunk(pixels, max_side), "jpg"
    if extension := kind_of(data):
        return data, extension
    return png(Image.fromarray(pixels)), "png"


def kind_of(data: bytes) -> str | None:
    """The extension of the format by the first bytes: jpg, png or webp, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def _shrunk(pixels: UInt8[np.ndarray, "h w 3"], max_side: int) -> bytes:
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    image = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY, subsampling="4:2:0")
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
