"""The promises of inspect and of the contact sheet."""

import numpy as np
import pytest
from PIL import Image

from pipelines.inspect import draw, inspect, inspect_splits
from pipelines.pack import Packing, pack
from pipelines.sheet import GAP, LINE, TILE, contact_sheet
from pipelines.source import open_source
from tests.pipelines.storage import folder, picture


def test_contents_say_what_is_there(tmp_path):
    root = folder(tmp_path / "d", classes=("cat", "dog"), each=4)
    (root / "dog" / "wide.png").write_bytes(picture(1, kind="PNG", size=(40, 8)))
    (root / "dog" / "zero.jpg").write_bytes(b"")
    found = inspect(root)
    assert (found.images, found.classes, found.unlabelled, found.shards) == (10, {"cat": 4, "dog": 6}, 0, 1)
    assert found.bytes == sum(path.stat().st_size for path in root.rglob("*.*"))
    assert found.formats == {"jpg": 8, "png": 1} and found.looked_at == 10
    assert found.widths == (16, 16, 40) and found.heights == (8, 12, 12)
    assert found.bad == (("dog/zero.jpg", "zero bytes"),)
    assert found.fingerprint == open_source(root).fingerprint
    for word in (
        "10 in 1 shards",
        "cat 4, dog 6",
        "8 jpg, 1 png",
        "16 / 16 / 40",
        "dog/zero.jpg: zero bytes",
    ):
        assert word in str(found)


def test_contents_of_unlabelled_images_and_of_many_classes_are_short(tmp_path):
    assert "labels       none" in str(inspect(folder(tmp_path / "flat", classes=("",))))
    many = inspect(folder(tmp_path / "many", classes=[f"c{i:03d}" for i in range(50)], each=1))
    assert "and 30 more" in str(many) and "c030" not in str(many)


def test_names_that_a_terminal_would_obey_are_escaped(tmp_path):
    (tmp_path / "a" / "x\x1b[2Jy").mkdir(parents=True)
    (tmp_path / "a" / "x\x1b[2Jy" / "1\x07.jpg").write_bytes(b"no image")
    text = str(inspect(tmp_path / "a"))
    assert (
        text.replace("\n", "").isprintable() and r"1\x07.jpg: not an image" in text and r"x\x1b[2Jy 1" in text
    )


def test_every_split_is_inspected(tmp_path):
    pack(
        folder(tmp_path / "d", each=10),
        tmp_path / "out",
        Packing(holdout=0.25, shard_images=4),
        progress=False,
    )
    found = inspect_splits(tmp_path / "out")
    assert {split: (c.images, c.shards) for split, c in found.items()} == {"train": (15, 4), "val": (5, 2)}
    tars = (tmp_path / "out" / "train").glob("*.tar")
    assert found["train"].bytes == sum(path.stat().st_size for path in tars)


@pytest.mark.parametrize(("images", "count"), [(5, 10), (40, 10), (41, 10), (10**10, 300)])
def test_draws_are_different_images_and_the_same_each_time(images, count):
    drawn = draw(images, count, seed=1)
    assert len(set(drawn)) == len(drawn) == min(images, count)
    assert min(drawn) >= 0 and max(drawn) < images
    assert drawn == draw(images, count, seed=1)
    assert drawn != draw(images, count, seed=2)


def test_a_contact_sheet_shows_images_names_and_bad_ones(tmp_path):
    (tmp_path / "d" / "red").mkdir(parents=True)
    Image.new("RGB", (64, 64), (250, 0, 0)).save(tmp_path / "d" / "red" / "a.png")
    (tmp_path / "d" / "red" / "b\n\u00e9.jpg").write_bytes(b"")
    contact_sheet(tmp_path / "d", tmp_path / "sheet.png", rows=1, columns=3, seed=0)
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert sheet.shape == (TILE + 2 * LINE + 2 * GAP, 3 * (TILE + GAP) + GAP, 3)
    middles = {tuple(sheet[GAP + 5, GAP + place * (TILE + GAP) + 5]) for place in range(3)}
    assert middles == {(250, 0, 0), (236, 236, 236), (255, 255, 255)}  # the image, a bad one, nothing
    captions = sheet[GAP + TILE :, : 2 * (TILE + GAP)]
    assert (captions < 100).all(axis=2).sum() > 50
    again = tmp_path / "again.png"
    contact_sheet(tmp_path / "d", again, rows=1, columns=3, seed=0)
    assert again.read_bytes() == (tmp_path / "sheet.png").read_bytes()


def test_a_contact_sheet_that_cannot_be_made_is_one_sentence(tmp_path):
    root = folder(tmp_path / "d", each=1)
    with pytest.raises(ValueError, match="0 x 3 images is empty"):
        contact_sheet(root, tmp_path / "sheet.png", rows=0, columns=3)
    with pytest.raises(ValueError, match="cannot write the contact sheet"):
        contact_sheet(root, tmp_path / "nowhere" / "sheet.png")
    with pytest.raises(ValueError, match=r"000\.jpg would be a PNG"):
        contact_sheet(root, tmp_path / "d" / "cat" / "000.jpg")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(ValueError, match=r"folder\.png exists and is no PNG"):
        contact_sheet(root, tmp_path / "folder.png")
