"""The promises of sources: whatever a path names, images by number, and one sentence where it cannot be."""

import gzip
import os
import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.decode import decode
from pipelines.formats.layout import SUFFIXES
from pipelines.index import index_path
from pipelines.manifest import NAME
from pipelines.pack import Packing, pack
from pipelines.source import ShardError, expand, open_source, open_splits
from tests.pipelines.storage import files, folder, picture, shard, tar


def zipped(path, root):
    with zipfile.ZipFile(path, "w") as file:
        for number, (name, data) in enumerate(files(root).items()):
            file.writestr(name, data, zipfile.ZIP_DEFLATED if number % 2 else zipfile.ZIP_STORED)
    return path


def idx(path, pixels, labels=None, *, compress=False):
    """An IDX pair; the labels file lies beside the images."""
    write = gzip.open if compress else open
    with write(path, "wb") as file:
        file.write(
            (0x803).to_bytes(4, "big")
            + b"".join(n.to_bytes(4, "big") for n in pixels.shape)
            + pixels.tobytes()
        )
    if labels is not None:
        with write(path.with_name(path.name.replace("images-idx3", "labels-idx1")), "wb") as file:
            file.write((0x801).to_bytes(4, "big") + len(labels).to_bytes(4, "big") + bytes(labels))
    return path


@pytest.fixture(params=["folder", "zip"])
def opened(request):
    """Opens a folder of images, or a zip of it."""

    def do(root, **options):
        path = zipped(root.with_suffix(".zip"), root) if request.param == "zip" else root
        return open_splits(path) if options.pop("splits", False) else open_source(path, **options)

    return do


def test_a_folder_of_classes_gives_labels_in_the_order_of_names(tmp_path, opened):
    root = folder(tmp_path / "d", classes=("dog", "ant", "cat"), each=2)
    (root / "cat" / "notes.txt").write_text("no image")
    (root / "cat" / "._x.jpg").write_bytes(b"a macOS resource fork")
    source = opened(root)
    assert source.classes == ["ant", "cat", "dog"]
    assert source.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert [source.key(i) for i in (0, 5)] == ["ant/000.jpg", "dog/001.jpg"]
    assert source.read(5) == (root / "dog" / "001.jpg").read_bytes()
    assert source.shard_sizes.tolist() == [6]
    assert "d" in source.shard(0)


def test_every_format_that_is_decoded_counts_as_an_image_by_its_name(tmp_path, opened):
    root = tmp_path / "d"
    root.mkdir()
    for suffix in SUFFIXES:
        Image.new("RGB", (8, 6), (200, 30, 30)).save(root / f"one{suffix}")
        Image.new("RGB", (8, 6), (200, 30, 30)).save(root / f"two{suffix.upper()}")
    source = opened(root)
    assert len(source) == 2 * len(SUFFIXES)
    assert all(decode(source.read(sample), 100).shape == (6, 8, 3) for sample in range(len(source)))


def test_a_flat_folder_has_no_labels(tmp_path, opened):
    source = opened(folder(tmp_path / "d", classes=("",), each=70))
    assert (source.labels == -1).all() and source.classes == []
    assert source.shard_sizes.tolist() == [64, 6]


def test_a_folder_of_splits_numbers_classes_alike(tmp_path, opened):
    root = folder(tmp_path / "d", classes=("train/a", "train/b", "valid/b"), each=3)
    found = opened(root, splits=True)
    assert sorted(found) == ["train", "val"]
    assert found["val"].classes == ["a", "b"] and found["val"].labels.tolist() == [1, 1, 1]
    with pytest.raises(ValueError, match="holds several data sets"):
        opened(root)
    with pytest.raises(ValueError, match="no split 'test'"):
        opened(root, split="test")


def test_shards_in_folders_called_like_splits_are_splits(tmp_path):
    for split in ("train", "val"):
        pack(folder(tmp_path / split, each=3), tmp_path / "tars" / split)
        (tmp_path / "tars" / split / NAME).unlink()
    found = open_splits(tmp_path / "tars")
    assert {split: len(source) for split, source in found.items()} == {"train": 6, "val": 6}


def test_a_split_that_has_lost_its_manifest_is_not_passed_over(tmp_path):
    for split in ("train", "val"):
        pack(folder(tmp_path / split, each=3), tmp_path / "tars" / split)
    (tmp_path / "tars" / "train" / NAME).unlink()
    with pytest.raises(ValueError, match=rf"train holds shards but no {NAME}.*pack it again"):
        open_splits(tmp_path / "tars")


def test_a_fingerprint_changes_with_the_data(tmp_path, opened):
    root = folder(tmp_path / "d")
    before = opened(root).fingerprint
    assert opened(root).fingerprint == before
    (root / "cat" / "000.jpg").write_bytes(picture(1) + b"more")
    assert opened(root).fingerprint != before


@pytest.mark.parametrize(
    "classes", [("Cat", "cat"), ("caf\u00e9", "cafe\u0301"), ("dog", "dog "), ("train/a", "train/A", "val/a")]
)
def test_two_classes_with_one_name_are_refused(tmp_path, opened, classes):
    with pytest.raises(ValueError, match="two classes with one name"):
        opened(folder(tmp_path / "d", classes=classes, each=1), splits=True)


def test_a_class_that_only_val_has_is_refused(tmp_path, opened):
    with pytest.raises(ValueError, match="val has 'c', which train lacks"):
        opened(folder(tmp_path / "d", classes=("train/a", "val/a", "val/c"), each=1), splits=True)


def test_images_beside_class_folders_are_refused(tmp_path, opened):
    with pytest.raises(ValueError, match=r"both in class folders and beside them \(000.jpg\)"):
        opened(folder(tmp_path / "d", classes=("", "cat"), each=1))


def test_a_folder_without_images_is_refused(tmp_path, opened):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.txt").write_text("x")
    with pytest.raises(ValueError, match="holds no images"):
        opened(tmp_path / "d")


def test_links_that_turn_in_a_circle_end(tmp_path):
    root = folder(tmp_path / "d", each=1)
    (root / "cat" / "again").symlink_to(root)
    assert len(open_source(root)) == 2


@pytest.mark.parametrize("name", ["../out.jpg", "/abs.jpg", "a/../../b.jpg", "C:\\x.jpg", "..\\y.jpg"])
def test_a_zip_that_points_outside_itself_is_refused(tmp_path, name):
    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as file:
        file.writestr("ok.jpg", picture(0))
        file.writestr(name, picture(1))
    with pytest.raises(ValueError, match=r"evil\.zip is refused: its member .* points outside"):
        open_source(tmp_path / "evil.zip")


def test_a_truncated_zip_is_an_error_that_names_it(tmp_path):
    path = zipped(tmp_path / "cut.zip", folder(tmp_path / "d"))
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(ShardError, match=r"cut\.zip cannot be read as a zip"):
        open_source(path)


def test_a_damaged_zip_member_is_one_bad_image(tmp_path):
    path = zipped(tmp_path / "d.zip", folder(tmp_path / "d"))
    data = bytearray(path.read_bytes())
    place = data.find(b"\xff\xd8\xff")  # the first image is stored, not deflated
    data[place + 20] ^= 1
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(OSError, match=r"cat/000\.jpg in .* is damaged"):
        source.read(0)
    assert source.read(1) == (tmp_path / "d" / "cat" / "001.jpg").read_bytes()


@pytest.mark.parametrize("compress", [False, True])
def test_an_idx_pair_gives_lossless_images_and_labels(tmp_path, compress):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 5, 4), dtype=np.uint8)
    path = idx(
        tmp_path / f"t10k-images-idx3-ubyte{'.gz' * compress}", pixels, [3, 0, 1, 1, 2, 0], compress=compress
    )
    for source in (open_source(path), open_source(tmp_path)):
        assert source.classes == ["0", "1", "2", "3"] and source.labels.tolist() == [3, 0, 1, 1, 2, 0]
    (tmp_path / "3.png").write_bytes(source.read(3))
    assert (np.asarray(Image.open(tmp_path / "3.png")) == pixels[3]).all()


def test_two_idx_pairs_are_train_and_val(tmp_path):
    pixels = np.zeros((2, 3, 3), dtype=np.uint8)
    idx(tmp_path / "train-images-idx3-ubyte", pixels, [0, 1])
    idx(tmp_path / "t10k-images-idx3-ubyte", pixels[:1], [0])
    found = open_splits(tmp_path)
    assert {split: len(source) for split, source in found.items()} == {"train": 2, "val": 1}
    assert found["train"].classes == found["val"].classes == ["0", "1"]


def test_more_labels_than_images_are_refused(tmp_path):
    path = idx(tmp_path / "x-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8), [0, 1, 2])
    with pytest.raises(ValueError, match=r"has 3 labels for the 2 images"):
        open_source(path)


@pytest.mark.parametrize(
    "change", [lambda b: b[:-1], lambda b: b + b"x", lambda b: b[:9], lambda b: b"\0" * 16 + b[16:]]
)
def test_a_damaged_idx_file_is_an_error_that_names_it(tmp_path, change):
    path = idx(tmp_path / "x-images-idx3-ubyte", np.zeros((2, 3, 3), dtype=np.uint8), [0, 1])
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ShardError, match="x-images-idx3-ubyte"):
        open_source(path)


@pytest.fixture
def shards(tmp_path):
    root = tmp_path / "shards"
    root.mkdir()
    for number in range(3):
        shard(root / f"a-{number:03d}.tar", count=4 + number, seed=10 * number)
    return root


def test_tars_are_found_by_folder_glob_braces_list_and_list_file(shards, tmp_path):
    (tmp_path / "list.txt").write_text(f"# shards\n{shards}/a-{{000..001}}.tar\n\n{shards}/a-002.tar\n")
    whole = open_source(shards)
    assert len(whole) == 15 and whole.shard_sizes.tolist() == [4, 5, 6]
    assert whole.classes == ["0", "1", "2"]
    assert whole.read(4) == picture(10) and whole.key(5) == "0001" and whole.shard(14).endswith("a-002.tar")
    names = [
        f"{shards}/*.tar",
        f"{shards}/a-{{000..002}}.tar",
        f"{shards}/a-00{{0,1,2}}.tar",
        f"@{tmp_path}/list.txt",
    ]
    for path in [*names, sorted(shards.glob("*.tar"), reverse=True)]:
        assert open_source(path).fingerprint == whole.fingerprint


def test_braces_spell_out_as_in_a_shell():
    assert expand("a-{08..11}.{x,y}") == [f"a-{n}.{e}" for n in ("08", "09", "10", "11") for e in "xy"]
    assert expand("{9..11}") == ["9", "10", "11"]


def test_the_index_is_stored_once_and_used_again(shards):
    first = open_source(shards)
    path = index_path(shards / "a-000.tar")
    stamp = path.stat().st_mtime_ns
    assert open_source(shards).fingerprint == first.fingerprint
    assert path.stat().st_mtime_ns == stamp


def test_without_a_place_for_the_index_it_is_kept_in_memory(shards):
    for number in range(3):
        index_path(shards / f"a-{number:03d}.tar").with_name(
            f".a-{number:03d}.tar.index.safetensors.{os.getpid()}.partial"
        ).mkdir()  # in the way of the file that would be written
    source = open_source(shards)
    assert source.read(14) == picture(25) and source.labels.tolist()[:4] == [0, 1, 2, 0]
    assert not list(shards.glob("*.safetensors"))


def test_a_truncated_shard_is_named_when_it_is_opened(shards):
    open_source(shards)
    os.truncate(shards / "a-001.tar", 3000)
    with pytest.raises(ShardError, match=r"a-001\.tar: it is truncated: it ends after 3,000 bytes"):
        open_source(shards)


def relabelled(path):
    """Makes the label of the first image of a shard a 2, which changes neither its length nor its ends."""
    content = bytearray(path.read_bytes())
    place = content.find(b"0000.cls\0") + 512
    assert content[place : place + 1] == b"0" and place > 0
    content[place : place + 1] = b"2"
    path.write_bytes(content)


def test_a_shard_that_changed_after_it_was_indexed_is_indexed_again(shards):
    path = shards / "a-001.tar"
    os.utime(path, ns=(0, 0))
    before = open_source(shards)
    assert before.label(4) == 0
    relabelled(path)
    os.utime(path, ns=(1, 1))
    after = open_source(shards)
    assert after.label(4) == 2
    assert after.fingerprint != before.fingerprint
    with pytest.raises(ShardError, match=r"a-001\.tar or its index was changed: .*start again"):
        assert len(before.labels)
    shard(path, count=2)
    assert open_source(shards).shard_sizes.tolist() == [4, 2, 6]


def test_a_shard_that_was_only_copied_keeps_its_fingerprint(shards, tmp_path):
    before = open_source(shards).fingerprint
    for number in range(3):
        os.utime(shards / f"a-{number:03d}.tar", ns=(number, number))
    assert open_source(shards).fingerprint == before
    stamp = index_path(shards / "a-000.tar").stat().st_mtime_ns
    assert open_source(shards).fingerprint == before
    assert index_path(shards / "a-000.tar").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("place", [0, -1])
def test_a_packed_shard_that_its_index_does_not_fit_is_named(packed, place):
    path = packed / "data-000001.tar"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(ShardError, match=r"index of shard .*data-000001\.tar does not match it"):
        open_source(f"{packed}/*.tar")


def test_an_index_that_is_a_folder_or_a_shard_that_is_no_file_is_named(shards):
    index_path(shards / "a-001.tar").mkdir()
    with pytest.raises(ShardError, match=r"a-001\.tar\.index\.safetensors cannot be used: Is a directory"):
        open_source(shards)
    index_path(shards / "a-001.tar").rmdir()
    (shards / "b.tar").mkdir()
    with pytest.raises(ShardError, match=r"shard .*/b\.tar is a folder, not a file"):
        open_source(shards)
    (shards / "b.tar").rmdir()
    os.mkfifo(shards / "b.tar")
    with pytest.raises(ShardError, match=r"shard .*/b\.tar is .*pipe.*, not a file"):
        open_source(shards)


def test_a_damaged_index_is_named(shards):
    open_source(shards)
    index_path(shards / "a-001.tar").write_bytes(b"\x10\0\0\0\0\0\0\0 nothing")
    with pytest.raises(ShardError, match=r"a-001\.tar\.index\.safetensors cannot be used"):
        open_source(shards)


def test_a_shard_that_is_cut_off_during_the_run_is_named(shards):
    source = open_source(shards)
    source.read(5)
    os.truncate(shards / "a-001.tar", 600)
    with pytest.raises(ShardError, match=r"a-001\.tar is truncated"):
        source.read(6)


def test_a_shard_that_is_missing_is_named(shards):
    with pytest.raises(ShardError, match=r"a-009\.tar cannot be opened: No such file"):
        open_source(f"{shards}/a-{{000,009}}.tar")


@pytest.mark.parametrize("name", ["B.TAR", "b.Tar"])
def test_shards_in_capitals_are_shards(shards, name):
    whole = len(open_source(shards))
    shard(shards / name, count=5)
    assert len(open_source(shards)) == whole + 5 == len(open_source(f"{shards}/*.[tT]*[rR]"))
    assert len(open_source(shards / name)) == 5


@pytest.mark.parametrize("name", ["b.tar.gz", "b.tgz", "b.TAR.GZ", "b.tar.zst", "b.tar.bz2", "b.tar.xz"])
def test_compressed_tars_are_refused_beside_shards_and_instead_of_them(shards, tmp_path, name):
    (tmp_path / "alone" / "train").mkdir(parents=True)
    for place in (shards, tmp_path / "alone", tmp_path / "alone" / "train"):
        (place / name).write_bytes(gzip.compress(b"a tar"))
        for path in (place, place / name):
            with pytest.raises(ValueError, match=rf"{name} .*is a compressed tar.*uncompress it first"):
                open_source(path)
        (place / name).unlink()
    assert len(open_source(shards)) == 15


def test_a_split_of_compressed_tars_is_not_passed_over(tmp_path):
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
    shard(tmp_path / "train" / "a.tar")
    (tmp_path / "val" / "a.tar.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"val/a\.tar\.gz is a compressed tar"):
        open_splits(tmp_path)


def test_an_archive_beside_the_folder_that_was_unpacked_from_it_is_no_shard(tmp_path):
    folder(tmp_path / "photos", each=3)
    (tmp_path / "photos.tgz").write_bytes(gzip.compress(b"a tar"))
    assert len(open_source(tmp_path)) == 6


def test_a_folder_of_images_may_be_called_like_a_tar(tmp_path):
    assert len(open_source(folder(tmp_path / "photos.tar", each=3))) == 6


@pytest.mark.parametrize("beginning", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_a_compressed_tar_that_is_called_a_tar_is_said_to_be_compressed(tmp_path, beginning):
    (tmp_path / "a.tar").write_bytes(beginning + bytes(range(256)) * 8)
    with pytest.raises(ShardError, match=r"a\.tar: it is compressed with (gzip|bzip2|xz|zstd), whatever it"):
        open_source(tmp_path)


@pytest.mark.parametrize("text", ["", "\n \n", "# nothing\n\n# yet"])
def test_a_list_that_names_nothing_is_refused(shards, tmp_path, text):
    (tmp_path / "empty.txt").write_text(text)
    (tmp_path / "list.txt").write_text(f"{shards}/a-000.tar\n@{tmp_path}/empty.txt\n")
    for name in ("empty", "list"):
        with pytest.raises(ValueError, match=r"the list of shards .*empty\.txt names nothing"):
            open_source(f"@{tmp_path}/{name}.txt")


def test_a_tar_without_images_is_refused(tmp_path):
    path = tar(tmp_path / "t.tar", [("a.txt", b"x")])
    with pytest.raises(ValueError, match="no images"):
        open_source(path)


def test_a_tar_named_twice_is_refused(shards):
    (shards / "b.tar").symlink_to(shards / "a-000.tar")
    with pytest.raises(ValueError, match="names one file twice"):
        open_source(shards)


@pytest.fixture
def packed(tmp_path):
    root = tmp_path / "packed"
    pack(folder(tmp_path / "images", each=10), root, Packing(shard_images=7), progress=False)
    return root


def test_a_packed_data_set_may_move(packed, tmp_path):
    before = open_source(packed)
    packed.rename(tmp_path / "elsewhere")
    after = open_source(tmp_path / "elsewhere")
    assert after.fingerprint == before.fingerprint == open_source(f"{tmp_path}/elsewhere/*.tar").fingerprint
    assert after.classes == ["cat", "dog"]


def test_a_lost_index_of_a_packed_shard_is_built_again_as_it_was(packed):
    path = index_path(packed / "data-000001.tar")
    data = path.read_bytes()
    path.unlink()
    assert open_source(packed).read(8)
    assert path.read_bytes() == data


def test_a_lost_shard_of_a_packed_data_set_is_named(packed):
    (packed / "data-000001.tar").unlink()
    with pytest.raises(
        ShardError, match=r"data-000001\.tar is missing: dataset\.json names it with 7 images"
    ):
        open_source(packed)


@pytest.mark.parametrize(
    ("size", "sentence"), [(1000, "truncated: it has 1,000 bytes"), (1 << 20, "not the one")]
)
def test_a_packed_shard_of_another_length_is_named(packed, size, sentence):
    os.truncate(packed / "data-000001.tar", size)
    with pytest.raises(ShardError, match=rf"data-000001\.tar is {sentence}"):
        open_source(packed)


def test_a_packed_shard_with_another_ones_index_is_named(packed):
    index_path(packed / "data-000001.tar").write_bytes(index_path(packed / "data-000000.tar").read_bytes())
    with pytest.raises(ShardError, match=r"data-000001\.tar or its index was changed"):
        open_source(packed).read(8)


def test_a_changed_packed_shard_without_an_index_is_named(packed):
    path = packed / "data-000001.tar"
    data = bytearray(path.read_bytes())
    data[data.find(b"\xff\xd8\xff") + 30] ^= 1
    path.write_bytes(data)
    index_path(path).unlink()
    with pytest.raises(ShardError, match=r"data-000001\.tar or its index was changed"):
        open_source(packed).read(8)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("CANARY",)


def test_a_pickle_in_a_shard_is_never_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil = pickle.dumps(Canary())
    path = tar(tmp_path / "e.tar", [("0.jpg", picture(0)), ("0.pyd", evil), ("0.pkl", evil), ("1.pth", evil)])
    source = open_source(path)
    assert len(source) == 1 and source.read(0) == picture(0)
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize("path", ["pipe:touch CANARY", "@list.txt"])
def test_pipes_are_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.txt").write_text("pipe:touch CANARY\n")
    with pytest.raises(ValueError, match="pipes are refused"):
        open_source(path)
    assert not (tmp_path / "CANARY").exists()


@pytest.mark.parametrize(
    ("path", "sentence"),
    [("nowhere", "does not exist"), ("a*.tar", "no file matches"),
     ([], "empty"),
     ("note.txt", "neither a folder"), ("gone-{0..1}.tar", "cannot be opened"), ("@gone.txt", "gone.txt")],
)  # fmt: skip
def test_a_path_that_names_nothing_usable_is_one_sentence(tmp_path, monkeypatch, path, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.txt").write_text("x")
    with pytest.raises(ValueError, match=sentence):
        open_source(path)


def test_several_folders_are_joined_and_share_no_class(tmp_path):
    one, two = (
        folder(tmp_path / "one", classes=("b", "c"), each=2),
        folder(tmp_path / "two", classes=("a",), each=3),
    )
    source = open_source([one, two])
    assert source.classes == ["b", "c", "a"] and source.labels.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert source.read(4) == (two / "a" / "000.jpg").read_bytes() and source.key(4) == "a/000.jpg"
    assert source.shard_sizes.sum() == len(source) == 7
    with pytest.raises(ValueError, match="two classes with one name"):
        open_source([one, folder(tmp_path / "three", classes=("C",), each=1)])


def test_many_threads_read_at_once(shards):
    source, wrong = open_source(shards), []

    def read(seed: int) -> None:
        for sample in np.random.default_rng(seed).integers(0, 15, 200).tolist():
            number = int(np.searchsorted([4, 9, 15], sample, side="right"))
            place = sample - [0, 4, 9][number]
            if source.read(sample) != picture(10 * number + place):
                wrong.append(sample)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_only_so_many_shards_stay_open(shards, monkeypatch):
    monkeypatch.setattr("pipelines.formats.sharded.OPEN_SHARDS", 2)
    source = open_source(shards)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(3):
        for sample in (0, 5, 10):
            source.read(sample)
    assert len(list(Path("/proc/self/fd").iterdir())) == before + 2
