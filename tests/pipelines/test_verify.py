"""The promises of verify: what is wrong is named, what is whole is called so, and nothing on disk changes."""

import os
import subprocess
import sys
import zipfile

import pytest

from pipelines.index import index_path
from pipelines.journal import Journal
from pipelines.manifest import NAME
from pipelines.pack import Packing, pack
from pipelines.verify import Verify, verify
from tests.pipelines.storage import files, folder, picture, shard, tar

FORMATS = {"webdataset": ".tar", "ffcv": ".beton"}


def looked(path, **settings):
    return verify(path, Verify(**settings), progress=False)


def stamps(root):
    """Everything below a folder, with the times of its last changes."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in sorted(root.rglob("*"))}


@pytest.fixture(params=FORMATS)
def packed(request, tmp_path):
    """A data set of 40 images in 6 shards, and the suffix of its shards."""
    root = tmp_path / "packed"
    settings = Packing(shard_images=7, format=request.param)
    pack(folder(tmp_path / "images", each=20), root, settings, progress=False)
    return root, FORMATS[request.param]


def zipped(tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as file:
        for name, data in files(tmp_path / "images").items():
            file.writestr(name, data)
    return tmp_path / "images.zip"


@pytest.mark.parametrize("fast", [False, True])
def test_what_is_whole_is_called_whole_and_left_as_it_was(packed, tmp_path, fast):
    root, suffix = packed
    zipped(tmp_path)
    before = stamps(tmp_path)
    for path in (root, f"{root}/*{suffix}", root / f"data-000002{suffix}", tmp_path / "images"):
        found = looked(path, fast=fast)
        assert found.whole and found.images in (40, 7), str(found)
    assert looked(tmp_path / "images.zip", fast=fast).whole
    assert looked(root, fast=fast).shards == 6
    assert stamps(tmp_path) == before


def test_a_flipped_byte_is_found_by_checksum_and_the_image_by_decoding(packed):
    root, suffix = packed
    path = root / f"data-000003{suffix}"
    data = bytearray(path.read_bytes())
    place = data.find(b"\xff\xd8\xff")
    data[place : place + 3] = b"\0\0\0"
    path.write_bytes(data)
    for fast in (True, False):
        found = looked(root, fast=fast)
        assert not found.whole and any(f"{path} was changed: its checksum" in line for line in found.broken)
        assert len(found.bad) == (0 if fast else 1)
    ((where, key, cause),) = found.bad
    assert where == str(path) and key.partition("/")[0] in ("cat", "dog") and cause == "not an image"
    assert key in str(found) and "1 bad images" in str(found)


def test_every_kind_of_broken_shard_is_named_in_one_run(packed):
    root, suffix = packed
    names = [root / f"data-{number:06d}{suffix}" for number in range(6)]
    names[0].unlink()
    os.truncate(names[1], 3000)
    index_path(names[2]).write_bytes(b"nothing")
    index_path(names[3]).write_bytes(index_path(names[4]).read_bytes())
    for fast in (True, False):
        broken = "\n".join(looked(root, fast=fast).broken)
        assert f"{names[0]} is missing" in broken and f"{names[1]} is truncated" in broken
        assert f"{index_path(names[2])} cannot be used" in broken
        assert f"the index of shard {names[3]} does not match it" in broken
        assert str(names[4]) not in broken and str(names[5]) not in broken


def test_an_index_that_points_to_the_wrong_images_is_found(tmp_path):
    from dataclasses import replace

    from pipelines.index import index_bytes
    from pipelines.source import open_source
    from pipelines.stored import read_index

    path = shard(tmp_path / "a.tar", count=4)
    open_source(path)
    index = read_index(path)
    index_path(path).write_bytes(index_bytes(replace(index, labels=index.labels[::-1].copy())))
    found = looked(path, fast=True)
    assert found.broken == (f"the index of shard {path} describes other images or labels than lie in it",)


def test_a_tar_that_ends_before_its_images_do_is_not_called_whole(tmp_path):
    path = shard(tmp_path / "a.tar", count=6)
    data = bytearray(path.read_bytes())
    place = data.find(b"0003.jpg\0")
    data[place : place + 512] = bytes(512)
    path.write_bytes(data)
    for fast in (True, False):
        assert f"a.tar: it goes on after its end mark at byte {place:,}" in looked(path, fast=fast).broken[0]


def test_compressed_tars_beside_shards_are_said_and_those_in_capitals_looked_at(tmp_path):
    shard(tmp_path / "a.tar", count=2)
    shard(tmp_path / "B.TAR", count=3)
    assert (looked(tmp_path).images, looked(tmp_path).whole) == (5, True)
    (tmp_path / "c.tar.gz").write_bytes(b"")
    found = looked(tmp_path, fast=True)
    assert found.images == 5 and "c.tar.gz is a compressed tar" in found.broken[0]


def test_foreign_shards_without_an_index_get_none(tmp_path):
    cut = picture(1, size=(200, 200))[:-900]
    content = [("0.jpg", picture(0)), ("1.jpg", cut), ("2.png", b""), ("3.jpg", picture(3))]
    tar(tmp_path / "a.tar", content)
    found = looked(tmp_path)
    assert {key: cause for _, key, cause in found.bad} == {"1": "broken image", "2": "zero bytes"}
    assert not found.broken and found.images == 4
    assert [path.name for path in tmp_path.iterdir()] == ["a.tar"]


def test_bad_files_and_damaged_zips_are_named(tmp_path):
    root = folder(tmp_path / "images", each=3)
    (root / "cat" / "001.jpg").write_bytes(b"text")
    (root / "dog" / "dead.jpg").symlink_to("nowhere.jpg")
    assert {key: cause for _, key, cause in looked(root).bad} == {
        "cat/001.jpg": "not an image", "dog/dead.jpg": "unreadable"
    }  # fmt: skip
    (root / "dog" / "dead.jpg").unlink()
    path = zipped(tmp_path)
    data = bytearray(path.read_bytes())
    data[data.find(b"\xff\xd8\xff") + 20] ^= 1
    path.write_bytes(data)
    assert [row[1:] for row in looked(path, fast=True).bad] == [("cat/000.jpg", "unreadable")]
    os.truncate(path, len(data) // 2)
    assert "cannot be read as a zip" in looked(path).broken[0]


def test_a_pack_that_was_not_finished_is_said(tmp_path):
    (tmp_path / "out").mkdir()
    with Journal(tmp_path / "out", "plan"):
        pass
    assert "was not finished" in looked(tmp_path / "out").broken[0]


def test_splits_of_foreign_shards_are_checked_and_a_lost_manifest_is_said(tmp_path):
    for split in ("train", "val"):
        pack(folder(tmp_path / split, each=3), tmp_path / "tars" / split)
        (tmp_path / "tars" / split / NAME).rename(tmp_path / f"{split}.json")
    found = looked(tmp_path / "tars")
    assert found.whole and (found.shards, found.images) == (2, 12)

    (tmp_path / "val.json").rename(tmp_path / "tars" / "val" / NAME)
    found = looked(tmp_path / "tars")
    assert len(found.broken) == 1 and f"train holds shards but no {NAME}" in found.broken[0]
    assert (found.shards, found.images) == (2, 12)


def test_a_damaged_manifest_is_said(packed):
    (packed[0] / "dataset.json").write_text("{")
    assert "dataset.json is damaged" in looked(packed[0]).broken[0]


def test_nothing_to_verify_is_one_sentence(tmp_path):
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "gone.tar"):
        with pytest.raises(
            ValueError, match=r"holds no images|does not exist|is missing|cannot be opened"
        ) as caught:
            found = looked(path)
            raise ValueError("\n".join(found.broken))
        assert str(path) in str(caught.value)


def test_comparing_with_ffcv_says_how_to_get_it_where_it_is_missing(packed, monkeypatch):
    root, suffix = packed
    monkeypatch.setitem(sys.modules, "ffcv", None)
    monkeypatch.setitem(sys.modules, "ffcv.reader", None)
    if suffix == ".tar":
        assert looked(root, fast=True, ffcv=True).whole
        return
    with pytest.raises(ValueError, match="`make ffcv` installs it"):
        looked(root, fast=True, ffcv=True)


def test_the_command_fails_where_something_is_wrong(packed):
    root, suffix = packed

    def run(*words):
        command = [sys.executable, "-m", "raymask", "verify", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True)

    done = run(root)
    assert done.returncode == 0 and "whole; 40 images in 6 shards, decoded" in done.stdout
    assert "40 of 40 images" in done.stderr
    os.truncate(root / f"data-000001{suffix}", 3000)
    done = run(root, "fast=true")
    assert done.returncode == 1 and f"data-000001{suffix} is truncated" in done.stdout
