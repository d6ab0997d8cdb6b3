"""Faults of data, each built for real: replaced and named, decoded rightly, or a sentence with the shard."""

import io
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.data import Data
from pipelines.decode import BadSample, decode
from pipelines.jpeg_library import find_library
from pipelines.loader import Loader
from pipelines.pack import Packing, pack
from pipelines.planes import plane_decoder
from pipelines.source import ShardError, Source, open_source
from pipelines.verify import verify
from tests.pipelines.pictures import encoded, picture
from tests.pipelines.test_decode import a_png_that_claims, saved
from tests.pipelines.test_loader import SMALL

PLACE, COUNT = 3, 9  # which image of how many is at fault
PIXELS = picture(100, 60, 80)
JPEG = encoded(PIXELS)
CANARY = "canary"


def flipped(jpeg: bytes) -> bytes:
    """A JPEG with damage in the middle of what its entropy coder wrote, and sound at both ends."""
    broken, rng = bytearray(jpeg), np.random.default_rng(0)
    for place in rng.integers(len(jpeg) // 2, len(jpeg) - 200, 40):
        broken[place] ^= 0x55
    return bytes(broken)


class Trap:
    """Unpickling it would leave a file behind."""

    def __reduce__(self):
        return (Path.touch, (Path(CANARY),))


BAD_BYTES = {
    "truncated JPEG": (JPEG[: len(JPEG) // 2], "broken image"),
    "JPEG cut in its header": (JPEG[:100], "not an image"),
    "flipped bytes": (flipped(JPEG), "broken image"),
    "wrong extension, text": (b"<html>404 not found</html>", "not an image"),
    "wrong extension, PostScript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
    "a pickle as an image": (pickle.dumps(Trap()), "not an image"),
    "zero bytes": (b"", "zero bytes"),
    "decompression bomb": (a_png_that_claims(50_000, 50_000), "too many pixels"),
}


def put(file: tarfile.TarFile, name: str, data: bytes = b"", **header: object) -> None:
    """Appends a member; `header` sets what tarfile lets one set, such as its type."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in header.items():
        setattr(info, field, value)
    file.addfile(info, io.BytesIO(data))


def key(number: int) -> str:
    return f"{number:04d}"


def good(number: int) -> bytes:
    return encoded(picture(number, 30 + number, 40))


def tar(path: Path, fault: Callable[[tarfile.TarFile], None]) -> Path:
    """A tar of images with labels; in the place of one of them is what `fault` appends."""
    with tarfile.open(path, "w") as file:
        for number in range(COUNT):
            if number == PLACE:
                fault(file)
            else:
                put(file, f"{key(number)}.jpg", good(number))
            put(file, f"{key(number)}.cls", b"1")
    return path


def folder(path: Path, data: bytes, name: str) -> Path:
    """A folder of images, one of them with these bytes."""
    path.mkdir()
    for number in range(COUNT):
        (path / (name if number == PLACE else f"{key(number)}.jpg")).write_bytes(
            data if number == PLACE else good(number)
        )
    return path


def served(source: Source, log: Path, *, world: int = 1, threads: int = 0) -> list[int]:
    """The samples of two epochs in the order of their positions, as all ranks of a world get them."""
    data = Data(crops=SMALL, threads=threads, max_bad_fraction=0.3)
    found: dict[int, int] = {}
    for rank in range(world):
        loader = Loader(data, source, batch=3, seed=1, rank=rank, world=world, steps=6, bad_log=log)
        for batch in loader:
            assert all(torch.isfinite(crop).all() for crop in batch.crops.values())
            found.update(zip(batch.positions.tolist(), batch.samples.tolist(), strict=True))
    return [found[position] for position in range(len(found))]


def check_replaced(path: Path, cause: str, work: Path, bad: int = PLACE) -> dict:
    """One sample is bad, and what stands in for it is the same for any ranks and threads; its line."""
    source, log = open_source(path), work / "bad_samples.jsonl"
    alone = served(source, log)
    assert bad not in alone and len(alone) == 18 and set(alone) == set(range(len(source))) - {bad}
    (line,) = [json.loads(text) for text in log.read_text().splitlines()]
    after = (bad + 1) % len(source)
    assert (line["sample"], line["cause"], line["replaced_by"]) == (bad, cause, after)
    assert alone.count(after) == 4, "its own turns and those of its neighbour, in two epochs"
    for world, threads in ((1, 2), (2, 1), (3, 0)):
        assert served(source, work / f"{world}" / "bad_samples.jsonl", world=world, threads=threads) == alone
    assert json.loads((work / "1" / "bad_samples.jsonl").read_text()) == line
    return line


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place to work in, where an executed pickle would leave its mark."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("fault", BAD_BYTES)
@pytest.mark.parametrize("form", ["tar", "folder"])
def test_bytes_that_are_no_picture_are_replaced_counted_and_named(work, form, fault):
    if fault == "flipped bytes" and find_library() is None:
        pytest.skip("Pillow, which alone decodes here, does not pass on what libjpeg warns of")
    data, cause = BAD_BYTES[fault]
    if form == "tar":
        path = tar(work / "a.tar", lambda file: put(file, f"{key(PLACE)}.jpg", data))
    else:
        path = folder(work / "images", data, f"{key(PLACE)}.jpg")
    line = check_replaced(path, cause, work)
    assert line["key"].startswith(key(PLACE)) and str(path) in line["shard"]
    assert not (work / CANARY).exists()


# Faults of a tar's members, by what is in the place of the image, and the cause.
BAD_MEMBERS: dict[str, tuple[Callable[[tarfile.TarFile], None], str]] = {
    "symbolic link": (
        lambda file: put(file, "0003.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "link or device",
    ),
    "hard link": (
        lambda file: put(file, "0003.jpg", type=tarfile.LNKTYPE, linkname="0002.jpg"),
        "link or device",
    ),
    "character device": (lambda file: put(file, "0003.jpg", type=tarfile.CHRTYPE), "link or device"),
    "block device": (lambda file: put(file, "0003.jpg", type=tarfile.BLKTYPE), "link or device"),
    "pipe": (lambda file: put(file, "0003.jpg", type=tarfile.FIFOTYPE), "link or device"),
    "path traversal": (lambda file: put(file, "../../0003.jpg", JPEG), "unsafe name"),
    "path traversal inside": (lambda file: put(file, "a/../../0003.jpg", JPEG), "unsafe name"),
    "absolute path": (lambda file: put(file, "/etc/0003.jpg", JPEG), "unsafe name"),
    "duplicate key": (lambda file: put(file, "0002.jpg", JPEG), "duplicate key"),
    "duplicate of an earlier key": (lambda file: put(file, "0000.jpg", JPEG), "duplicate key"),
}


@pytest.mark.parametrize("fault", BAD_MEMBERS)
def test_members_that_must_not_be_used_are_replaced_counted_and_named(work, fault):
    append, cause = BAD_MEMBERS[fault]
    (work / "data" / "below").mkdir(parents=True)
    path = tar(work / "data" / "below" / "a.tar", append)
    check_replaced(path, cause, work / "logs")
    written = {str(path) for path in Path().rglob("*.*") if path.parts[0] != "logs"}
    assert written == {"data/below/a.tar", "data/below/a.tar.index.safetensors"}


def test_neighbours_of_one_key_leave_the_first_its_label(work):
    def twice(file: tarfile.TarFile) -> None:
        put(file, "0003.jpg", JPEG)
        put(file, "0003.jpg", good(50))

    source = open_source(tar(work / "a.tar", twice))
    assert len(source) == COUNT + 1 and source.read(PLACE) == JPEG
    assert source.label(PLACE) == 1
    with pytest.raises(BadSample, match="duplicate key"):
        source.read(PLACE + 1)


def test_a_pickle_beside_an_image_is_never_opened_and_the_image_is_used(work):
    def members(file: tarfile.TarFile) -> None:
        for extension in ("pkl", "pickle", "pyd", "npy"):
            put(file, f"0003.{extension}", pickle.dumps(Trap()))
        put(file, "0003.jpg", JPEG)

    source = open_source(tar(work / "a.tar", members))
    assert len(source) == COUNT and source.read(PLACE) == JPEG
    assert set(served(source, work / "bad_samples.jsonl")) == set(range(COUNT))
    assert not (work / CANARY).exists() and not (work / "bad_samples.jsonl").exists()


def test_an_image_without_a_label_is_used_and_its_label_is_minus_one(work):
    with tarfile.open(work / "a.tar", "w") as file:
        for number in range(COUNT):
            put(file, f"{key(number)}.jpg", good(number))
            if number != PLACE:
                put(file, f"{key(number)}.cls", b"0")
    source = open_source(work / "a.tar")
    assert [source.label(number) for number in range(COUNT)] == [0] * 3 + [-1] + [0] * 5
    assert set(served(source, work / "bad_samples.jsonl")) == set(range(COUNT))


@pytest.mark.parametrize("form", ["tar", "folder"])
def test_a_name_with_control_characters_is_escaped_in_the_log_and_in_the_sentence(work, form):
    name = "0003\x1b[2J\r\x07\u202e.jpg"
    if form == "tar":
        path = tar(work / "a.tar", lambda file: put(file, name, b"no image"))
    else:
        path = folder(work / "images", b"no image", name)
    assert check_replaced(path, "not an image", work)["key"].startswith(name.removesuffix(".jpg"))
    text = (work / "bad_samples.jsonl").read_text()
    assert text.isascii() and text.rstrip("\n").isprintable()
    settings = Data(crops=SMALL, threads=0, max_bad_fraction=0)
    with pytest.raises(ValueError, match="1 of 9 images cannot be used") as stopped:
        list(Loader(settings, open_source(path), batch=3, seed=1, steps=6))
    assert str(stopped.value).isprintable() and r"0003\x1b[2J\r\x07\u202e" in str(stopped.value)


ODD = np.concatenate([PIXELS, np.full((60, 80, 1), 9, np.uint8)], axis=2)
PALETTE = Image.fromarray(PIXELS).quantize(16)
LEVELS = np.asarray(Image.fromarray(PIXELS).convert("L"))


def fine_jpeg(image: Image.Image, **how: object) -> bytes:
    return saved(image, "JPEG", quality=95, subsampling=0, **how)


# Files out of the ordinary, the pixels that they hold, and by how much JPEG may change them on average.
GREY = np.stack([LEVELS] * 3, axis=2)
OTHERS = [Image.fromarray(picture(seed, 60, 80)) for seed in (1, 2)]
GOOD = {
    "CMYK JPEG": (fine_jpeg(Image.fromarray(PIXELS).convert("CMYK")), PIXELS, 4),
    "grey JPEG": (fine_jpeg(Image.fromarray(LEVELS)), GREY, 4),
    "progressive JPEG": (fine_jpeg(Image.fromarray(PIXELS), progressive=True), PIXELS, 4),
    "16-bit grey": (saved(Image.fromarray(LEVELS.astype(np.uint16) * 257)), GREY, 0),
    "palette with alpha": (
        saved(PALETTE, transparency=bytes([0, 128, 255])),
        np.asarray(PALETTE.convert("RGB")),
        0,
    ),
    "alpha": (saved(Image.fromarray(ODD)), PIXELS, 0),
    "animated webp": (
        saved(Image.fromarray(PIXELS), "WEBP", lossless=True, save_all=True, append_images=OTHERS),
        PIXELS,
        0,
    ),
    "wrong extension, PNG": (saved(Image.fromarray(PIXELS)), PIXELS, 0),
    "wrong extension, GIF": (saved(PALETTE, "GIF"), np.asarray(PALETTE.convert("RGB")), 0),
}


@pytest.mark.parametrize("kind", GOOD)
def test_unusual_pictures_give_their_pixels_and_are_not_bad(work, kind):
    data, pixels, off = GOOD[kind]
    found = decode(data, 10_000)
    assert np.abs(found.astype(int) - pixels).mean() <= off
    path = tar(work / "a.tar", lambda file: put(file, "0003.jpg", data))
    assert set(served(open_source(path), work / "bad_samples.jsonl")) == set(range(COUNT))
    assert not (work / "bad_samples.jsonl").exists()


def truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def damaged_header(path: Path) -> None:
    data = path.read_bytes()
    at = data.index(b"0005.jpg")
    path.write_bytes(data[:at] + b"X" + data[at + 1 :])


def long_name_of(size: int) -> Callable[[Path], None]:
    """A GNU header that announces a long name of `size` bytes, and has them."""

    def damage(path: Path) -> None:
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
        path.write_bytes(
            info.tobuf(tarfile.GNU_FORMAT) + b"a" * size + bytes(-size % 512) + path.read_bytes()
        )

    return damage


def pax_of(records: bytes) -> Callable[[Path], None]:
    """A pax header with these records."""

    def damage(path: Path) -> None:
        info = tarfile.TarInfo("pax")
        info.type, info.size = tarfile.XHDTYPE, len(records)
        start = info.tobuf(tarfile.USTAR_FORMAT) + records + bytes(-len(records) % 512)
        path.write_bytes(start + path.read_bytes())

    return damage


BROKEN_SHARDS = {
    "truncated tar": (truncated, "truncated"),
    "damaged header": (damaged_header, "is damaged"),
    "oversized GNU header": (long_name_of(2 << 20), "claims 2,097,152 bytes, too many"),
    "oversized pax header": (pax_of(b"2097152 path=" + b"a" * ((2 << 20) - 14) + b"\n"), "too many"),
    "malformed pax header": (pax_of(b"000006\n"), "malformed"),
    "pax header with a negative size": (pax_of(b"11 size=-9\n"), "no size"),
}


@pytest.mark.parametrize("fault", BROKEN_SHARDS)
def test_a_fault_of_a_whole_shard_is_one_sentence_that_names_it(work, fault):
    damage, says = BROKEN_SHARDS[fault]
    path = tar(work / "a.tar", lambda file: put(file, "0003.jpg", JPEG))
    damage(path)
    with pytest.raises(ShardError, match=rf"(?s)a\.tar.*{says}"):
        open_source(path)
    assert {path.name for path in work.iterdir()} == {"a.tar"}, "nothing half-written is left"


def test_a_shard_that_is_cut_while_it_is_read_stops_with_its_name(work):
    path = tar(work / "a.tar", lambda file: put(file, "0003.jpg", JPEG))
    source = open_source(path)
    source.read(0)
    truncated(path)
    with pytest.raises(ShardError, match=r"a\.tar is truncated"):
        served(source, work / "bad_samples.jsonl")


@pytest.mark.parametrize(("flips", "least"), [(1, 0.3), (4, 0.7), (16, 0.97)])
def test_most_files_with_flipped_bytes_are_noticed(flips, least):
    if find_library() is None:
        pytest.skip("Pillow, which alone decodes here, does not pass on what libjpeg warns of")
    files, rng = [encoded(picture(seed, 200, 260)) for seed in range(8)], np.random.default_rng(0)
    decoder, seen = plane_decoder(), 0
    for number in range(200):
        broken = bytearray(files[number % 8])
        for place in rng.integers(broken.rindex(b"\xff\xda") + 14, len(broken) - 2, flips):
            broken[place] = rng.integers(256)
        try:
            decoder(bytes(broken), 1_000_000)
        except BadSample:
            seen += 1
    assert seen >= least * 200
    assert all(decoder(file, 1_000_000).height == 200 for file in files)


@pytest.mark.parametrize("fault", ["symbolic link", "path traversal", "duplicate key"])
def test_what_is_replaced_in_training_is_left_out_of_a_pack_and_named_by_verify(work, fault):
    append, cause = BAD_MEMBERS[fault]
    path = tar(work / "a.tar", append)
    packed = pack(path, work / "out", Packing(max_bad_fraction=0.2), progress=False)
    assert packed.bad == {cause: 1} and len(open_source(work / "out")) == COUNT - 1
    assert [why for _, _, why in verify(path, progress=False).bad] == [cause]
