"""The promises of packing: the same bytes whatever happens, all accounted for, nothing half-written."""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.decode import BadSample
from pipelines.hands import Hand, How
from pipelines.journal import JOURNAL, Journal
from pipelines.keys import tar_keys
from pipelines.pack import BAD_SAMPLES, Packing, pack
from pipelines.source import ShardError, open_source
from tests.pipelines.storage import files, folder, picture, shard

SMALL = Packing(shard_images=7)


def quietly(source, out, packing=SMALL, **options):
    return pack(source, out, packing, progress=False, **options)


def images_of(source) -> Counter:
    """The images of a source with their classes."""
    names = [source.classes[label] if label >= 0 else None for label in source.labels.tolist()]
    return Counter((name, source.read(sample)) for sample, name in enumerate(names))


def test_a_folder_is_packed_with_its_labels_and_its_bytes(tmp_path):
    root = folder(tmp_path / "d", classes=("cat", "dog", "owl"), each=9)
    packed = quietly(root, tmp_path / "out")
    source = open_source(tmp_path / "out")
    assert source.classes == ["cat", "dog", "owl"]
    assert images_of(source) == images_of(open_source(root))
    assert packed.splits[""].images == 27 and packed.bad == {}
    assert source.shard_sizes.tolist() == [7, 7, 7, 6]
    assert source.fingerprint == packed.splits[""].fingerprint
    assert sorted(files(tmp_path / "out"))[:2] == ["data-000000.tar", "data-000000.tar.index.safetensors"]
    assert "27 images of 3 classes, 4 shards" in str(packed)


def test_plain_webdataset_reads_what_we_write(tmp_path):
    import webdataset

    root = folder(tmp_path / "d", each=6)
    quietly(root, tmp_path / "out")
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    found = list(webdataset.WebDataset(urls, shardshuffle=False))
    source = open_source(tmp_path / "out")
    assert [row["__key__"] for row in found] == [source.key(sample) for sample in range(12)]
    assert [row["jpg"] for row in found] == [source.read(sample) for sample in range(12)]
    assert [int(row["cls"]) for row in found] == source.labels.tolist()


def test_the_bytes_are_the_same_for_any_number_of_workers(tmp_path):
    root = folder(tmp_path / "d", each=40)
    for workers in (1, 2, 5):
        quietly(root, tmp_path / str(workers), workers=workers)
        os.utime(root / "cat" / "000.jpg")  # a time is nothing of the image
    one, two, five = (files(tmp_path / name) for name in ("1", "2", "5"))
    assert one == two == five


def test_members_carry_no_time_and_no_owner(tmp_path):
    quietly(folder(tmp_path / "d"), tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data-000000.tar") as file:
        about = {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in file}
    assert about == {(0, 0, 0, "", "", 0o444)}


def test_shards_stay_within_their_bytes_and_mix_the_classes(tmp_path):
    root = folder(tmp_path / "d", classes=("a", "b", "c"), each=40)
    quietly(root, tmp_path / "out", Packing(shard_bytes=1 << 15))
    tars = sorted((tmp_path / "out").glob("*.tar"))
    assert len(tars) > 4 and all(path.stat().st_size <= 1 << 15 for path in tars)
    assert min(path.stat().st_size for path in tars[:-1]) > (1 << 15) - 6000
    source = open_source(tmp_path / "out")
    parts = np.split(source.labels, np.cumsum(source.shard_sizes)[:-1])
    assert all(len(set(part.tolist())) == 3 for part in parts[:-1])


def test_seeds_give_different_orders_of_the_same_images(tmp_path):
    root = folder(tmp_path / "d", each=20)
    one, two = (quietly(root, tmp_path / str(s), Packing(seed=s)) for s in (0, 1))
    assert one.splits[""].fingerprint != two.splits[""].fingerprint
    assert images_of(open_source(tmp_path / "0")) == images_of(open_source(tmp_path / "1"))


def test_an_image_larger_than_a_shard_gets_its_own(tmp_path):
    root = folder(tmp_path / "d", each=3)
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "cat" / "big.png")
    quietly(root, tmp_path / "out", Packing(shard_bytes=1 << 14))
    assert images_of(open_source(tmp_path / "out")) == images_of(open_source(root))


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_train_and_val_folders_are_packed_as_such(tmp_path, form):
    root = folder(tmp_path / "d", classes=("root/train/a", "root/train/b", "root/val/b"), each=4)
    if form == "zip":
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as file:
            for name, data in files(root).items():
                file.writestr(name, data)
        root = tmp_path / "d.zip"
    packed = quietly(root, tmp_path / "out")
    assert {split: found.images for split, found in packed.splits.items()} == {"train": 8, "val": 4}
    val = open_source(tmp_path / "out", split="val")
    assert val.classes == ["a", "b"] and val.labels.tolist() == [1] * 4
    assert sorted(val.key(sample) for sample in range(4)) == ["b/000", "b/001", "b/002", "b/003"]
    with pytest.raises(ValueError, match="already split into train and val"):
        quietly(root, tmp_path / "other", Packing(holdout=0.2))


@pytest.mark.parametrize(("holdout", "expected"), [(0.2, 8), (0.25, 10), (7, 7)])
def test_the_holdout_is_exact_stratified_and_disjoint(tmp_path, holdout, expected):
    root = folder(tmp_path / "d", classes=("a", "b"), each=20)
    quietly(root, tmp_path / "out", Packing(holdout=holdout))
    train, val = (open_source(tmp_path / "out" / split) for split in ("train", "val"))
    assert (len(train), len(val)) == (40 - expected, expected)
    assert max(np.bincount(val.labels)) - min(np.bincount(val.labels)) <= 1
    assert images_of(train) + images_of(val) == images_of(open_source(root))


def test_packed_shards_can_be_packed_again(tmp_path):
    root = folder(tmp_path / "d", each=10)
    quietly(root, tmp_path / "one")
    quietly(tmp_path / "one", tmp_path / "two", Packing(shard_images=3, seed=5))
    one, two = open_source(tmp_path / "one"), open_source(tmp_path / "two")
    assert images_of(one) == images_of(two) and two.classes == ["cat", "dog"]
    assert {one.key(i) for i in range(20)} == {two.key(i) for i in range(20)}


def test_foreign_tars_keep_images_and_labels(tmp_path):
    shard(tmp_path / "a.tar", count=6)
    quietly(tmp_path / "a.tar", tmp_path / "out")
    assert images_of(open_source(tmp_path / "out")) == images_of(open_source(tmp_path / "a.tar"))


def test_an_idx_pair_becomes_lossless_pngs_with_names(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 6, 5), dtype=np.uint8)
    header = b"".join(n.to_bytes(4, "big") for n in (0x803, 10, 6, 5))
    (tmp_path / "x-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
    labels = bytes([0, 1] * 5)
    (tmp_path / "x-labels-idx1-ubyte").write_bytes(
        (0x801).to_bytes(4, "big") + (10).to_bytes(4, "big") + labels
    )
    source = tmp_path / "x-images-idx3-ubyte"
    quietly(source, tmp_path / "out", Packing(holdout=0.4, classes=("shirt", "shoe")))
    found = {}
    for split, size in (("train", 6), ("val", 4)):
        part = open_source(tmp_path / "out" / split)
        assert len(part) == size and part.classes == ["shirt", "shoe"]
        found |= {int(part.key(i)): np.asarray(Image.open(io.BytesIO(part.read(i)))) for i in range(size)}
    assert all((found[i] == pixels[i]).all() for i in range(10))
    with pytest.raises(ValueError, match="1 class names were given for data with 2 classes"):
        quietly(source, tmp_path / "other", Packing(classes=("shirt",)))


def test_only_longer_sides_are_brought_down_as_baseline_420(tmp_path):
    root = tmp_path / "d"
    (root / "a").mkdir(parents=True)
    sizes = {"wide": (300, 100), "tall": (50, 200), "fits": (128, 128), "small": (20, 30)}
    for number, (name, size) in enumerate(sizes.items()):
        (root / "a" / f"{name}.png").write_bytes(picture(number, kind="PNG", size=size))
    quietly(root, tmp_path / "out", Packing(max_side=128))
    source = open_source(tmp_path / "out")
    stored = {source.key(i).rpartition("/")[2]: source.read(i) for i in range(4)}
    for name in ("fits", "small"):
        assert stored[name] == (root / "a" / f"{name}.png").read_bytes()
    for name, size in (("wide", (128, 43)), ("tall", (32, 128))):
        image = Image.open(io.BytesIO(stored[name]))
        assert image.format == "JPEG" and image.size == size and "progressive" not in image.info
        assert [layer[1:3] for layer in image.layer] == [(2, 2), (1, 1), (1, 1)]


def progressive(seed: int, *, size: tuple[int, int] = (64, 48), mode: str = "RGB", **options) -> bytes:
    """A progressive JPEG."""
    file = io.BytesIO()
    image = Image.open(io.BytesIO(picture(seed, kind="PNG", size=size))).convert(mode)
    image.save(file, "JPEG", progressive=True, **options)
    return file.getvalue()


@pytest.mark.parametrize(("mode", "quality", "chroma"), [("RGB", 92, 0), ("RGB", 40, 2), ("L", 80, 0)])
def test_progressive_files_become_baseline_420_with_the_quantisation_they_had(
    tmp_path, mode, quality, chroma
):
    (tmp_path / "d").mkdir()
    data = progressive(1, mode=mode, quality=quality, subsampling=chroma)
    (tmp_path / "d" / "p.jpg").write_bytes(data)
    (tmp_path / "d" / "q.jpg").write_bytes(picture(2))
    quietly(tmp_path / "d", tmp_path / "out")
    quietly(tmp_path / "d", tmp_path / "kept", Packing(baseline=False))
    source, kept = open_source(tmp_path / "out"), open_source(tmp_path / "kept")
    stored = {source.key(n): source.read(n) for n in range(2)}
    assert {kept.key(n): kept.read(n) for n in range(2)} == {"p": data, "q": picture(2)}
    assert stored["q"] == picture(2)
    before, after = (Image.open(io.BytesIO(one)) for one in (data, stored["p"]))
    assert "progressive" not in after.info and after.mode == before.mode == mode
    assert after.quantization == before.quantization
    assert mode == "L" or [layer[1:3] for layer in after.layer] == [(2, 2), (1, 1), (1, 1)]
    error = np.asarray(after.convert("RGB"), float) - np.asarray(before.convert("RGB"), float)
    assert np.sqrt((error**2).mean()) < 6


def test_a_progressive_file_in_cmyk_becomes_baseline_too(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "p.jpg").write_bytes(progressive(1, mode="CMYK"))
    quietly(tmp_path / "d", tmp_path / "out")
    after = Image.open(io.BytesIO(open_source(tmp_path / "out").read(0)))
    assert "progressive" not in after.info and after.mode == "RGB"


def test_processes_give_the_bytes_that_threads_give(tmp_path, monkeypatch):
    root = spoiled(tmp_path / "d")
    (root / "cat" / "p.jpg").write_bytes(progressive(3))
    settings = Packing(max_side=14, max_bad_fraction=0.2, shard_images=9)
    threads = quietly(root, tmp_path / "threads", settings, workers=2)
    monkeypatch.setattr("pipelines.preparing.MANY", 10)
    processes = quietly(root, tmp_path / "processes", settings, workers=2)
    assert files(tmp_path / "threads") == files(tmp_path / "processes")
    assert threads.bad == processes.bad and len(threads.bad) == 5


def test_an_image_that_brings_a_process_down_is_one_bad_image():
    hand = Hand(How(None, 1000, baseline=True))
    try:
        assert hand.prepare(picture(1)) == (picture(1), "jpg")
        hand._process.kill()
        hand._process.wait()
        with pytest.raises(BadSample, match="broken image"):
            hand.prepare(picture(2))
        assert hand.prepare(picture(3)) == (picture(3), "jpg")
        with pytest.raises(BadSample, match="too many pixels"):
            hand.prepare(picture(4, size=(100, 11)))
    finally:
        hand.close()


def test_a_process_that_cannot_work_is_no_fault_of_the_image(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with status 1"):
        Hand(How(None, 1000, baseline=True)).prepare(picture(1))


def test_a_process_ends_with_whoever_started_it(tmp_path):
    script = (
        "import os, time; from pipelines.hands import Hand, How; h = Hand(How(None, 9999, True))\n"
        "h._start(); print(h._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        hand = int(parent.stdout.readline())
        os.kill(hand, 0)
        parent.kill()
    for _ in range(200):
        if (
            not Path(f"/proc/{hand}/stat").exists()
            or Path(f"/proc/{hand}/stat").read_text().split()[2] == "Z"
        ):
            return
        time.sleep(0.1)
    raise AssertionError("the process outlived its parent")


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "P"), ("PNG", "RGBA"), ("PNG", "LA"), ("PNG", "1"),
     ("PNG", "I;16"), ("WEBP", "RGBA")],
)  # fmt: skip
def test_unusual_images_keep_their_bytes(tmp_path, kind, mode):
    (tmp_path / "d").mkdir()
    image = Image.fromarray(np.arange(80, dtype=np.uint16).reshape(8, 10) * 800) if mode == "I;16" else None
    file = io.BytesIO()
    if image:
        image.save(file, kind)
    data = file.getvalue() or picture(0, kind=kind, mode=mode)
    (tmp_path / "d" / f"x.{kind.lower()}").write_bytes(data)
    quietly(tmp_path / "d", tmp_path / "out")
    assert open_source(tmp_path / "out").read(0) == data


def test_the_content_and_not_the_name_says_what_an_image_is(tmp_path):
    root = folder(tmp_path / "d", classes=("a",), each=1)
    (root / "a" / "png.jpg").write_bytes(picture(1, kind="PNG"))
    (root / "a" / "bmp.jpg").write_bytes(picture(2, kind="BMP"))
    quietly(root, tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "data-000000.tar") as file:
        found = {member.name: file.extractfile(member).read() for member in file}
    assert {name for name in found if not name.endswith(".cls")} == {"a/000.jpg", "a/png.png", "a/bmp.png"}
    assert found["a/png.png"] == picture(1, kind="PNG")
    pixels = [
        np.asarray(Image.open(io.BytesIO(data))) for data in (found["a/bmp.png"], picture(2, kind="BMP"))
    ]
    assert (pixels[0] == pixels[1]).all()


def huge_png() -> bytes:
    """A PNG of a few bytes that claims 160 megapixels."""
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", 16_000, 10_000, 8, 2, 0, 0, 0)),
        (b"IDAT", b""),
        (b"IEND", b""),
    ]
    parts = [struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def spoiled(root: Path) -> Path:
    """A folder of 40 good images and one of every kind of bad ones."""
    folder(root, each=20)
    cut = picture(5, size=(200, 200))[:3000]
    for name, data in {"empty": b"", "text": b"hello", "cut": cut, "huge": huge_png()}.items():
        (root / "cat" / f"{name}.jpg").write_bytes(data)
    (root / "dog" / "dead.jpg").symlink_to("nowhere.jpg")
    return root


def test_bad_images_are_left_out_counted_and_named(tmp_path):
    root = spoiled(tmp_path / "d")
    packed = quietly(root, tmp_path / "out", Packing(max_bad_fraction=0.2, shard_images=7))
    assert packed.bad == {
        "zero bytes": 1,
        "not an image": 1,
        "broken image": 1,
        "too many pixels": 1,
        "unreadable": 1,
    }
    assert packed.splits[""].images == 40
    lines = [json.loads(line) for line in (tmp_path / "out" / BAD_SAMPLES).read_text().splitlines()]
    assert {line["key"]: line["cause"] for line in lines} == {
        "cat/empty.jpg": "zero bytes",
        "cat/text.jpg": "not an image",
        "cat/cut.jpg": "broken image",
        "cat/huge.jpg": "too many pixels",
        "dog/dead.jpg": "unreadable",
    }
    assert quietly(root, tmp_path / "out", Packing(max_bad_fraction=0.2, shard_images=7)) == packed


def test_a_damaged_jpeg_that_pillow_would_fill_in_is_left_out(tmp_path):
    root = folder(tmp_path / "d", each=3)
    data = bytearray(picture(7, size=(200, 200)))
    middle = data.index(b"\xff\xda") + 300
    data[middle : middle + 200] = b"\xff\xd3" * 100
    (root / "cat" / "grey.jpg").write_bytes(data)
    Image.open(root / "cat" / "grey.jpg").load()  # no error
    for name, changes in (("kept", {}), ("shrunk", {"max_side": 8})):
        packed = quietly(root, tmp_path / name, Packing(max_bad_fraction=0.5, **changes))
        assert packed.bad == {"broken image": 1} and packed.splits[""].images == 6


def test_too_many_bad_images_stop_the_pack_and_leave_only_their_names(tmp_path):
    root = spoiled(tmp_path / "d")
    with pytest.raises(
        ValueError, match=r"2 of 45 images cannot be used \(.*\), 1 are allowed: .*max_bad_fraction"
    ):
        quietly(root, tmp_path / "out", Packing())
    assert list(files(tmp_path / "out")) == [BAD_SAMPLES]
    assert len((tmp_path / "out" / BAD_SAMPLES).read_text().splitlines()) == 2
    for name in ("cat/empty", "cat/text", "cat/cut", "dog/dead"):
        (root / f"{name}.jpg").unlink()
    assert quietly(root, tmp_path / "out", Packing()).bad == {"too many pixels": 1}


def test_images_none_of_which_can_be_used_are_refused(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match="none of the 1 images can be used"):
        quietly(tmp_path / "d", tmp_path / "out", Packing(max_bad_fraction=1))
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_refused_leaves_no_trace(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no images"):
        quietly(tmp_path / "empty", tmp_path / "out")
    shard(tmp_path / "a.tar")
    os.truncate(tmp_path / "a.tar", 1500)
    with pytest.raises(ShardError, match=r"a\.tar: it is truncated"):
        quietly(tmp_path / "a.tar", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_else_is_refused_and_left_alone(tmp_path):
    root = folder(tmp_path / "d")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("x")
    with pytest.raises(ValueError, match=r"already holds other files \(thesis.txt\)"):
        quietly(root, tmp_path / "out")
    with pytest.raises(ValueError, match="cannot pack into"):
        quietly(root, tmp_path / "out" / "thesis.txt")
    assert files(tmp_path / "out") == {"thesis.txt": b"x"}


def test_packing_twice_does_nothing_and_packing_otherwise_is_refused(tmp_path):
    root = folder(tmp_path / "d")
    first = quietly(root, tmp_path / "out")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()}
    assert quietly(root, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").iterdir()} == stamps
    with pytest.raises(ValueError, match="a pack of other data or settings"):
        quietly(root, tmp_path / "out", Packing(seed=1))


def test_two_packs_into_one_folder_at_once_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out", "plan"), pytest.raises(ValueError, match="another process packs into"):
        quietly(folder(tmp_path / "d"), tmp_path / "out")


RUN = """
import resource, signal, sys
from pipelines.pack import Packing, pack
if len(sys.argv) > 4:
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    packing = Packing(shard_images=5, format=sys.argv[3])
    print(pack(sys.argv[1], sys.argv[2], packing, workers=2, progress=False))
except ValueError as error:
    sys.exit(str(error))
"""


def photos(root: Path, count: int = 60) -> Path:
    """Images that take some milliseconds each."""
    root.mkdir()
    data = picture(0, size=(1200, 900))
    for number in range(count):
        (root / f"{number:03d}.jpg").write_bytes(data + number.to_bytes(2, "big"))
    return root


@pytest.mark.parametrize(
    ("shards", "form"), [(0, "webdataset"), (1, "webdataset"), (5, "webdataset"), (3, "ffcv")]
)
def test_a_killed_pack_goes_on_and_ends_with_the_same_bytes(tmp_path, shards, form):
    root, out = photos(tmp_path / "d"), tmp_path / "out"
    command = [sys.executable, "-c", RUN, str(root), str(out), form]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (out / JOURNAL).exists() or len(list(out.glob("*[rn]"))) < shards:  # .tar, .beton
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in sorted(out.glob("*[rn]"))[:-1]}
    assert not (out / "dataset.json").exists()
    with pytest.raises(ValueError, match="was not finished: run the same pack again"):
        open_source(out)
    quietly(root, out, Packing(shard_images=5, format=form))
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    quietly(root, tmp_path / "whole", Packing(shard_images=5, format=form))
    assert files(out) == files(tmp_path / "whole")


def test_a_torn_journal_line_and_stray_files_do_no_harm(tmp_path):
    root, out = folder(tmp_path / "d", each=20), tmp_path / "out"
    quietly(root, tmp_path / "whole")
    with pytest.raises(RuntimeError, match="stop"):
        stopped_after(3, root, out)
    with (out / JOURNAL).open("ab") as file:
        file.write(b'{"split": "", "sha')
    (out / "data-000004.tar").write_bytes(b"an orphan without a line in the journal")
    (out / ".data-000005.tar.partial").write_bytes(b"half of a shard")
    quietly(root, out)
    assert files(out) == files(tmp_path / "whole")


def stopped_after(shards: int, root: Path, out: Path) -> None:
    """Packs until so many shards are finished, and then fails as a crash would."""

    class Crashing(Journal):
        def add(self, entry):
            super().add(entry)
            if len(self.entries) == shards:
                raise RuntimeError("stop")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipelines.pack.Journal", Crashing)
        quietly(root, out)


def test_half_of_another_pack_is_refused(tmp_path):
    root, out = folder(tmp_path / "d", each=20), tmp_path / "out"
    with pytest.raises(RuntimeError, match="stop"):
        stopped_after(2, root, out)
    before = files(out)
    with pytest.raises(ValueError, match="holds an unfinished pack of other data"):
        quietly(root, out, Packing(seed=3))
    assert files(out) == before


@pytest.mark.parametrize("form", ["webdataset", "ffcv"])
@pytest.mark.parametrize("limit", [100, 30_000])
def test_a_disk_that_takes_no_more_is_one_sentence_and_nothing_half_written(tmp_path, limit, form):
    """A limit on file sizes stands in for a full disk: the kernel refuses the write in the same way."""
    root, out = photos(tmp_path / "d", count=20), tmp_path / "out"
    command = [sys.executable, "-c", RUN, str(root), str(out), form, str(limit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith(f"cannot write to {out}: File too large;") and done.stderr.count("\n") == 1
    assert not out.exists()


def test_a_log_gets_a_line_and_silence_when_asked(tmp_path, capsys):
    pack(folder(tmp_path / "d"), tmp_path / "one")
    assert "pack: 10 of 10 images" in capsys.readouterr().err
    quietly(tmp_path / "d", tmp_path / "two")
    assert capsys.readouterr().err == ""


@given(st.lists(st.text(st.sampled_from("ab./-1\n"), min_size=1, max_size=8), max_size=12))
@settings(deadline=None)
def test_tar_keys_are_unique_and_fit_for_webdataset(names):
    keys = tar_keys(names)
    assert len(set(keys)) == len(names)
    for key in keys:
        *folders, stem = key.split("/")
        assert stem and "." not in stem and ".." not in folders and key.isprintable()
