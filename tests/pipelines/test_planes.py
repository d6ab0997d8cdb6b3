"""JPEG planes: the library's own, Pillow's pixels after resizing, and no damage that goes unseen."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from pipelines.decode import BadSample
from pipelines.draws import NEVER, VIEW
from pipelines.jpeg_library import find_library
from pipelines.native import native
from pipelines.planes import PlaneDecoder, Stored, plane_of
from tests.pipelines.pictures import decibels, picture

LIMIT = 1_000_000
FAST = PlaneDecoder(find_library())
SAMPLINGS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}


def jpeg(pixels: np.ndarray, **how: object) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", **{"quality": 95, **how})
    return file.getvalue()


def cut(stored: Stored, box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """A plain crop as uint8 [h, w, 3]."""
    view = np.zeros(1, VIEW)
    for name, value in zip(("top", "left", "height", "width"), box):
        view[name] = value
    view["order"], view["threshold"] = -1, NEVER
    levels = np.empty((3, *size), np.uint8)
    native().levels(stored.data, stored.frame, view[0], levels)
    return levels.transpose(1, 2, 0)


def test_a_plain_installation_finds_a_library():
    assert find_library() is not None


def test_the_luma_is_the_librarys_own():
    data = jpeg(picture(0, 61, 83))
    image = Image.open(io.BytesIO(data))
    image.draft("YCbCr", None)
    stored = FAST(data, LIMIT)
    assert (plane_of(stored.data, stored.frame, 0) == np.asarray(image)[:, :, 0]).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("box", [(0, 0, 133, 211), (31, 40, 60, 73), (100, 150, 33, 61)])
def test_crops_are_those_of_pillows_pixels_within_45_decibels(sampling, progressive, box):
    data = jpeg(picture(1, 133, 211), subsampling=SAMPLINGS[sampling], progressive=progressive)
    top, left, height, width = box
    image = Image.open(io.BytesIO(data)).crop((left, top, left + width, top + height))
    for size in ((96, 96), (40, 30)):
        wanted = np.asarray(image.resize(size[::-1], Image.Resampling.BICUBIC))
        assert decibels(cut(FAST(data, LIMIT), box, size), wanted) > 45


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_other_colour_spaces_are_those_of_pillow(mode):
    file = io.BytesIO()
    rgb = {"keep_rgb": True} if mode == "RGB" else {}
    Image.fromarray(picture(2, 60, 80)).convert(mode).save(file, "JPEG", quality=95, **rgb)
    wanted = np.asarray(Image.open(file).convert("RGB"))
    assert decibels(cut(FAST(file.getvalue(), LIMIT), (0, 0, 60, 80), (60, 80)), wanted) > 45


@pytest.mark.parametrize("sides", [(1, 1), (1, 50), (50, 1), (2, 3), (17, 16), (16, 17)])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_sides_that_are_no_whole_blocks_are_no_matter(sides, sampling):
    data = jpeg(picture(3, *sides), subsampling=SAMPLINGS[sampling])
    wanted = np.asarray(Image.open(io.BytesIO(data)))
    assert decibels(cut(FAST(data, LIMIT), (0, 0, *sides), sides), wanted) > 45


@pytest.mark.parametrize("progressive", [False, True])
def test_truncation_is_seen_at_any_length(progressive):
    data = jpeg(picture(4, 64, 64), progressive=progressive)
    for length in range(0, len(data), 37):
        with pytest.raises(BadSample):
            FAST(data[:length], LIMIT)


def test_a_code_that_does_not_exist_is_seen_where_pillow_alone_would_guess():
    data = bytearray(jpeg(picture(5, 64, 64)))
    start = data.index(b"\xff\xda") + 60
    data[start : start + 40] = b"\xff\x00" * 20
    with pytest.raises(BadSample, match="broken image"):
        FAST(bytes(data), LIMIT)


def test_flipped_bytes_give_a_picture_or_a_bad_sample_and_the_next_file_is_sound():
    sound = jpeg(picture(6, 48, 56))
    expected, rng, seen = FAST(sound, LIMIT).data.copy(), np.random.default_rng(0), 0
    for _ in range(300):
        broken = bytearray(sound)
        for place in rng.integers(2, len(sound), 6):
            broken[place] = rng.integers(256)
        try:
            FAST(bytes(broken), LIMIT)
        except BadSample:
            seen += 1
    assert seen > 150
    stored = FAST(sound, LIMIT)
    size = int(native().jpeg_bytes(stored.frame)) - 56 - 8  # the last stretch is written in vain
    assert (stored.data[:size] == expected[:size]).all()


def test_a_header_that_claims_too_much_is_refused_before_anything_is_decoded():
    data = bytearray(jpeg(picture(7, 16, 16)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(BadSample, match="too many pixels"):
        FAST(bytes(data), LIMIT)


def test_without_a_library_pillow_gives_the_same_crops_within_45_decibels():
    data = jpeg(picture(8, 90, 120))
    slow = PlaneDecoder(None)(data, LIMIT)
    box = (5, 6, 70, 90)
    assert decibels(cut(FAST(data, LIMIT), box, (48, 48)), cut(slow, box, (48, 48))) > 45


def test_threads_decode_beside_each_other():
    files = [jpeg(picture(seed, 60 + seed, 90)) for seed in range(6)]
    wanted = [cut(FAST(data, LIMIT), (0, 0, 60, 90), (32, 32)) for data in files]
    wrong = []

    def work(order: range) -> None:
        for i in order:
            if not (cut(FAST(files[i % 6], LIMIT), (0, 0, 60, 90), (32, 32)) == wanted[i % 6]).all():
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(range(k, 60, 3),)) for k in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
