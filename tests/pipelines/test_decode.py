"""Bytes to pixels: every kind of image becomes RGB, every kind of damage a cause."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from pipelines.decode import BadSample, decode
from pipelines.jpeg_library import find_library
from pipelines.planes import plane_decoder
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


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def a_png(rows: bytes, *, interlaced: bool = False) -> bytes:
    """A PNG of 8 x 8 grey pixels with these rows, a filter byte before each."""
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, interlaced)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("level", [0, 200])
def test_a_png_that_holds_fewer_rows_than_it_says_is_broken_and_a_black_one_is_not(level):
    rows = 8 * (b"\0" + bytes([level] * 8))
    assert decode(a_png(rows), 64).tolist() == np.full((8, 8, 3), level).tolist()
    for missing in (9, 36, 63):
        with pytest.raises(BadSample, match="broken image"):
            decode(a_png(rows[:-missing]), 64)


def test_an_interlaced_png_that_lacks_its_last_pass_is_broken():
    # the seven passes: 1, 1, 2, 4, 8, 16 and 32 pixels, in 1, 1, 1, 2, 2, 4 and 4 rows
    rows = b"".join((b"\0" + b"\x80" * wide) * high for wide, high in
                    ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4)))  # fmt: skip
    assert decode(a_png(rows, interlaced=True), 64).tolist() == np.full((8, 8, 3), 128).tolist()
    with pytest.raises(BadSample, match="broken image"):
        decode(a_png(rows[:-36], interlaced=True), 64)


@pytest.mark.parametrize("value", [0.5, np.nan, 70_000, -1])
def test_numbers_that_are_no_levels_of_grey_are_broken_rather_than_black_or_white(value):
    kind = np.int32 if isinstance(value, int) else np.float32
    with pytest.raises(BadSample, match="broken image"):
        decode(saved(Image.fromarray(np.full((4, 4), value, kind)), "TIFF"), 64)


@pytest.mark.skipif(find_library() is None, reason="Pillow, which alone decodes here, does not say so")
def test_a_progressive_jpeg_without_its_last_scans_is_broken():
    for image in (Image.fromarray(picture(5, 60, 80)), Image.fromarray(picture(5, 60, 80)).convert("L")):
        whole = saved(image, "JPEG", progressive=True)
        scans = [place for place in range(len(whole) - 1) if whole[place : place + 2] == b"\xff\xda"]
        tables = [whole.rfind(b"\xff\xc4", 0, place) for place in scans]
        assert len(scans) > 5 and plane_decoder()(whole, 10_000).height == 60
        for cut in {place for place in tables if place > scans[0]}:
            with pytest.raises(BadSample, match="broken image"):
                plane_decoder()(whole[:cut] + b"\xff\xd9", 10_000)
