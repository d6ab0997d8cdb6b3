"""From a file's bytes to the bytes that are stored: the same ones, unless there is a reason."""

import io

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pipelines.decode import load, pixels_of

# h, w: pixels

QUALITY = 90
PLAIN_FRAMES = (0xC0, 0xC1)  # baseline and extended sequential, Huffman coded
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def prepare(data: bytes, *, max_side: int | None, max_pixels: int, baseline: bool) -> tuple[bytes, str]:
    """What to store of an image, and the extension of its format. Raises BadSample if it does not decode.

    A JPEG, PNG or WebP keeps its bytes, whatever its file was called. A long side above `max_side` is brought
    down to it, as a baseline 4:2:0 JPEG; the pixels lie as `decode` sees them (orientation tags are neither
    applied nor kept). With `baseline`, a progressive or arithmetic-coded JPEG becomes a baseline 4:2:0 one of
    the quantisation it had. What is in another format becomes a lossless PNG.
    """
    image = readable(data, max_pixels)
    extension = kind_of(data)
    if max_side is not None and max(image.size) > max_side:
        return _shrunk(pixels_of(image), max_side), "jpg"
    if baseline and extension == "jpg" and not is_sequential(data):
        return _as_baseline(image), "jpg"
    if extension:
        return data, extension
    return png(Image.fromarray(pixels_of(image))), "png"


def readable(data: bytes, max_pixels: int) -> Image.Image:
    """The decoded image. Raises BadSample unless `decode` could give its pixels."""
    image = load(data, max_pixels)
    if image.mode not in ("RGB", "L"):  # from other modes, the way to RGB can fail as well
        pixels_of(image)
    return image


def kind_of(data: bytes) -> str | None:
    """The extension of the format by the first bytes: jpg, png or webp, or None."""
    if data.startswith(b"\xff\xd8\xff"):
        return "jpg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    return "webp" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def is_sequential(data: bytes) -> bool:
    """Whether a JPEG is one pass of Huffman codes, which decodes several times as fast as several passes."""
    place = 2
    while place + 4 <= len(data):
        marker = data[place + 1]
        if data[place] != 0xFF:
            return True  # a damaged header: whatever decoded it knows better
        if marker == 0xFF or marker in ALONE:
            place += 1 if marker == 0xFF else 2
        elif marker in FRAMES:
            return marker in PLAIN_FRAMES
        else:
            place += 2 + int.from_bytes(data[place + 2 : place + 4], "big")
    return True


def _as_baseline(image: Image.Image) -> bytes:
    if image.mode in ("RGB", "L"):
        return _jpeg(image, getattr(image, "quantization", None))
    return _jpeg(Image.fromarray(pixels_of(image)), None)


def _shrunk(pixels: UInt8[np.ndarray, "h w 3"], max_side: int) -> bytes:
    height, width = pixels.shape[:2]
    scale = max_side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _jpeg(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), None)


def _jpeg(image: Image.Image, tables: dict[int, list[int]] | None) -> bytes:
    """A baseline JPEG with these quantisation tables, or of the usual quality. Colours are stored 4:2:0."""
    file = io.BytesIO()
    chroma = {} if image.mode == "L" else {"subsampling": "4:2:0"}
    if tables:
        image.save(file, "JPEG", qtables=tables, **chroma)
    else:
        image.save(file, "JPEG", quality=QUALITY, **chroma)
    return file.getvalue()


def png(image: Image.Image) -> bytes:
    """The image as a PNG file."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
