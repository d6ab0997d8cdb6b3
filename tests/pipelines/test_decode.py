"""Bytes to pixels: every kind of image becomes RGB, every kind of damage a cause."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.decode import BadSample, decode
from tests.pipelines.pictures import encoded, picture

LIMIT = 10_000
PIXELS = picture(0, 30, 40)


def saved(image: Image.Image, kind: str = "PNG", **how: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **how)
    return file.getvalue()


def cause(data: bytes, limit: int = LIMIT) -> str:
    with pytest.raises(BadSample) as caught:
        decode(data, limit)
    return caught.value.cause


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_lossless_files_give_their_pixels(kind):
    data = saved(Image.fromarray(PIXELS), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert (decode(data, LIMIT) == PIXELS).all()


def test_a_jpeg_is_decoded_as_pillow_does():
    data = encoded(PIXELS)
    assert (decode(data, LIMIT) == np.asarray(Image.open(io.BytesIO(data)))).all()


@pytest.mark.parametrize("mode", ["L", "1", "P", "CMYK", "LA", "RGBA"])
def test_other_modes_become_what_pillow_makes_of_them(mode):
    image = Image.fromarray(PIXELS).convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    assert (decode(saved(image, kind), LIMIT) == np.asarray(image.convert("RGB"))).all()


def test_transparency_is_dropped_and_the_colours_under_it_stay():
    alpha = np.full((30, 40, 1), 7, np.uint8)
    image = Image.fromarray(np.concatenate([PIXELS, alpha], axis=2))
    assert (decode(saved(image), LIMIT) == PIXELS).all()
    palette = Image.fromarray(PIXELS).quantize(16)
    with_holes = saved(palette, transparency=bytes([0, 128, 255]))
    assert (decode(with_holes, LIMIT) == np.asarray(palette.convert("RGB"))).all()


def test_16_bit_grey_is_scaled_not_clipped():
    levels = np.array([[0, 256, 257, 32768, 65535]], np.uint16)
    got = decode(saved(Image.fromarray(levels)), LIMIT)
    assert got[0].tolist() == [[v] * 3 for v in (0, 1, 1, 128, 255)]
    assert got.flags.writeable == decode(encoded(PIXELS), LIMIT).flags.writeable


def test_the_exif_orientation_is_ignored_as_by_torchvisions_folder():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = saved(Image.fromarray(PIXELS), "JPEG", exif=exif)
    assert decode(data, LIMIT).shape == PIXELS.shape


@pytest.mark.parametrize(
    "data", [b"hello", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", bytes(500)]
)
def test_what_is_no_image_is_called_so(data):
    assert cause(data) == "not an image"


def test_no_bytes_are_called_so():
    assert cause(b"") == "zero bytes"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_a_bad_sample(kind, share):
    data = saved(Image.fromarray(PIXELS), kind)
    assert cause(data[: int(len(data) * share)]) in ("broken image", "not an image")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow remarks on damaged tags
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"])
def test_damaged_bytes_give_pixels_or_a_bad_sample_and_nothing_else(kind):
    data = saved(Image.fromarray(PIXELS), kind)
    rng = np.random.default_rng(0)
    for _ in range(100):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 8):
            broken[place] = rng.integers(256)
        try:
            assert decode(bytes(broken), LIMIT).shape[2] == 3
        except BadSample as error:
            assert error.cause in ("broken image", "not an image", "too many pixels")


def a_png_that_claims(width: int, height: int) -> bytes:
    """A PNG of a few bytes whose header promises a huge image."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [101, 12_650, 40_000])
def test_too_many_pixels_are_refused_by_the_header(side):
    assert cause(a_png_that_claims(side, side)) == "too many pixels"


def test_the_limit_itself_is_allowed():
    assert decode(encoded(picture(0, 10, 10)), 100).shape == (10, 10, 3)
    assert cause(encoded(picture(0, 10, 11)), 100) == "too many pixels"
