"""The promises of tar headers, indexes and manifests."""

import hashlib
import io
import os
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.hashed import HashedFile
from pipelines.formats.tar import TarWriter, header, member_bytes, members
from pipelines.index import ShardError, index_bytes, index_path, parse_index
from pipelines.manifest import Manifest, Shard, read_manifest, write_manifest
from pipelines.notes import NOTHING, parse_notes
from pipelines.scan import build_index
from tests.pipelines.storage import picture, shard, tar

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=300).filter(
    lambda name: name.strip("/") == name
)


def scanned(data: bytes, path) -> list[tuple[bytes, bytes]]:
    path.write_bytes(data)
    with path.open("rb") as file:
        return [(m.name, data[m.offset : m.offset + m.size]) for m in members(file.fileno(), len(data))]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_read_from_every_tar_format(tmp_path, form):
    names = ["a.jpg", "d/" * 30 + "b.jpg", "x" * 90 + "/" + "y" * 60 + ".png"]
    names += [] if form == tarfile.USTAR_FORMAT else ["z" * 200 + ".jpg", "größe/é.webp"]
    content = [(name, bytes([i]) * (i * 511)) for i, name in enumerate(names)]
    tar(tmp_path / "a.tar", content, form=form)
    found = scanned((tmp_path / "a.tar").read_bytes(), tmp_path / "b.tar")
    assert found == [(name.encode(), data) for name, data in content]


@given(content=st.lists(st.tuples(NAMES, st.binary(max_size=2000)), max_size=6))
@settings(deadline=None, max_examples=50)
def test_what_we_write_python_and_we_read_back(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    file, offsets = io.BytesIO(), []
    hashed = HashedFile(file)
    writer = TarWriter(hashed)
    for name, data in content:
        before = hashed.position
        offsets.append(writer.add(name, data))
        assert hashed.position - before == member_bytes(name, len(data))
    writer.close()
    assert all(file.getvalue()[at:].startswith(data) for at, (_, data) in zip(offsets, content))
    assert hashed.position == len(file.getvalue())
    assert hashed.checksum == "blake2b:" + hashlib.blake2b(file.getvalue(), digest_size=32).hexdigest()
    assert scanned(file.getvalue(), path) == [(name.encode(), data) for name, data in content]
    with tarfile.open(path) as plain:
        assert [plain.extractfile(member).read() for member in plain] == [data for _, data in content]


ASCII = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=110)


@given(name=ASCII, size=st.integers(0, 2**40))
def test_our_headers_are_those_of_python(name, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    assert header(name, size) == info.tobuf(tarfile.PAX_FORMAT)


def test_links_and_devices_have_no_data_and_folders_are_stepped_over(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo("evil.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            file.addfile(info)
        info = tarfile.TarInfo("good.jpg")
        info.size = 3
        file.addfile(info, io.BytesIO(b"abc"))
    found = scanned((tmp_path / "a.tar").read_bytes(), tmp_path / "b.tar")
    assert found == [(b"evil.jpg", b"")] * 4 + [(b"good.jpg", b"abc")]


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_damaged_headers_are_an_error_or_harmless_but_never_a_crash(tmp_path_factory, data):
    root = tmp_path_factory.mktemp("tar")
    content = bytearray(tar(root / "a.tar", [("k" * 150 + ".jpg", b"x" * 700), ("b.cls", b"1")]).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (root / "b.tar").write_bytes(content)
    try:
        index = build_index(root / "b.tar")
    except ShardError as error:
        assert "b.tar" in str(error)
    else:
        assert (index.offsets + index.sizes <= len(content)).all()


@pytest.mark.parametrize("keep", [0, 100, 512, 900, 3000, 4096])
def test_a_truncated_tar_is_an_error_that_names_it(tmp_path, keep):
    path = shard(tmp_path / "cut.tar")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ShardError, match=r"cut\.tar: it is truncated"):
        build_index(path)


def holed(path, *, zeros):
    """A tar of six images with zeros from the header of the fourth on, for so many blocks or to its end."""
    data = bytearray(shard(path, count=6).read_bytes())
    place = data.find(b"0003.jpg\0")
    end = len(data) if zeros is None else place + 512 * zeros
    data[place:end] = bytes(end - place)
    path.write_bytes(data)
    return path, place


@pytest.mark.parametrize("zeros", [1, 2, 3])
def test_a_tar_with_zeros_amid_its_members_is_an_error_not_a_shorter_tar(tmp_path, zeros):
    path, place = holed(tmp_path / "hole.tar", zeros=zeros)
    with pytest.raises(ShardError, match=rf"hole\.tar: it goes on after its end mark at byte {place:,}"):
        build_index(path)


@pytest.mark.parametrize("more", [0, 1 << 20, 3 << 20])
def test_a_tar_whose_tail_is_zero_is_an_error_not_a_shorter_tar(tmp_path, more):
    path, place = holed(tmp_path / "holed.tar", zeros=None)
    os.truncate(path, place + 11 * 1024 + more)
    with pytest.raises(ShardError, match=rf"holed\.tar: it is zero from byte {place:,} on"):
        build_index(path)


def test_two_tars_joined_by_cat_are_an_error_however_long_the_first_ones_padding(tmp_path):
    one, two = (shard(tmp_path / f"{name}.tar").read_bytes() for name in "ab")
    for padding in (0, 512, 5 << 20):
        (tmp_path / "joined.tar").write_bytes(one + bytes(padding) + two)
        with pytest.raises(ShardError, match=r"joined\.tar: it goes on after its end mark"):
            build_index(tmp_path / "joined.tar")


@pytest.mark.parametrize("record", [1024, 10240, 1 << 16, 1 << 20])
def test_the_padding_of_every_usual_record_is_read_past(tmp_path, record):
    path = shard(tmp_path / "a.tar", count=6)
    data = path.read_bytes().rstrip(b"\0")
    data += bytes(-len(data) % 512) + bytes(1024)
    path.write_bytes(data + bytes(-len(data) % record))
    assert len(build_index(path)) == 6


def test_a_lone_zero_block_ends_a_tar(tmp_path):
    path = shard(tmp_path / "a.tar", count=6)
    data = path.read_bytes().rstrip(b"\0")
    path.write_bytes(data + bytes(-len(data) % 512 + 512))
    assert len(build_index(path)) == 6


@pytest.mark.parametrize("key", ["GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major"])
def test_a_sparse_file_of_any_kind_is_refused(tmp_path, key):
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {key: "1"}
        file.addfile(info)
    with pytest.raises(ShardError, match=r"s\.tar: it holds a sparse file"):
        build_index(tmp_path / "s.tar")


def test_a_file_that_is_no_tar_is_an_error_that_names_it(tmp_path):
    (tmp_path / "no.tar").write_bytes(b"hello" * 1000)
    with pytest.raises(ShardError, match=r"no\.tar: .*not a tar"):
        build_index(tmp_path / "no.tar")


def test_an_extended_header_that_claims_too_much_is_refused(tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 24
    path = tmp_path / "big.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT))
    os.truncate(path, 1 << 25)
    with pytest.raises(ShardError, match="too many"):
        build_index(path)


def test_an_index_finds_images_labels_and_keys(tmp_path):
    content = [
        ("d/1.cls", b"4\n"), ("d/1.jpg", b"one"), ("d/1.txt", b"?"),
        ("d/2.PNG", b"two"), ("d/2.json", b'{"label": 7, "w": 1}'),
        ("3.seg.png", b"mask"), ("3.jpeg", b"three"), ("3.json", b'{"caption": "x"}'),
        ("4.webp", b"four"), ("4.pyd", b"\x80\x04."),
        ("5.txt", b"no image"), (".hidden.jpg", b"no"), ("noextension", b"no"),
        ("6.left.jpg", b"six"), ("6.json", b"5"),
    ]  # fmt: skip
    path = tar(tmp_path / "a.tar", content)
    index, data = build_index(path), path.read_bytes()
    images = [data[o : o + s] for o, s in zip(index.offsets.tolist(), index.sizes.tolist())]
    assert images == [b"one", b"two", b"three", b"four", b"six"]
    assert index.labels.tolist() == [4, 7, -1, -1, 5]
    assert [index.key(i) for i in range(len(index))] == ["d/1", "d/2", "3", "4", "6"]


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.cls", b"\0cat"), ("a.cls", b""), ("a.cls", b"1.5"), ("a.cls", b"nan"), ("a.cls", b"-2"),
     ("a.cls", b"-100"), ("a.cls", b"9" * 5000), ("a.cls", b"1" + b"0" * (1 << 20)), ("a.json", b"{"),
     ("a.json", b""), ("a.json", b"Infinity"), ("a.json", b"[1,2]"), ("a.json", b'{"label": true}'),
     ("a.json", b'{"label": [1]}'), ("a.json", b'{"label": {"id": 3}}'), ("a.json", b'{"label": ""}'),
     ("a.json", b'{"label": " "}'), ("a.json", b"[" * 100_000), ("a.json", b'{"label": 1048576}')],
)  # fmt: skip
def test_a_label_that_says_nothing_usable_counts_as_none_and_is_noted(tmp_path, name, data):
    content = [("0.jpg", b"x"), ("0.cls", b"1"), ("a.jpg", b"x"), (name, data), ("b.jpg", b"x")]
    index = build_index(tar(tmp_path / "l.tar", content))
    assert index.labels.tolist() == [1, -1, -1]
    assert (index.notes.labels, index.notes.images) == (1, 0)
    assert index.notes.label.startswith(f"{name}, which holds ") and len(index.notes.label) < 150


@pytest.mark.parametrize(
    ("data", "label"),
    [(b'{"label": "", "target": 3}', 3), (b'{"label": [1], "class": 2}', 2), (b'{"label": {}, "cls": 0}', 0),
     (b'{"target": "", "class": "4", "label": null}', 4), (b"\xef\xbb\xbf5", 5)],
)  # fmt: skip
def test_an_empty_field_of_json_or_one_that_is_a_list_leaves_the_next_one_to_say_the_label(
    tmp_path, data, label
):
    index = build_index(tar(tmp_path / "l.tar", [("a.jpg", b"x"), ("a.json", data)]))
    assert index.labels.tolist() == [label] and index.notes == NOTHING


def test_images_whose_key_another_has_are_counted_and_named(tmp_path):
    content = [(f"v1.{number}.jpg", b"%d" % number) for number in range(3)]
    content += [("2.jpg", b"3"), ("2.png", b"4"), ("2.cls", b"1"), ("3.jpg", b"5"), ("3.txt", b"a b")]
    content += [("4.png", b"6")]
    path = tar(tmp_path / "a.tar", content)
    index, data = build_index(path), path.read_bytes()
    assert [data[at : at + 1] for at in index.offsets.tolist()] == [b"0", b"3", b"5", b"6"]
    assert (index.notes.images, index.notes.image) == (3, "v1.1.jpg")
    assert parse_index(index_bytes(index)).notes == index.notes
    (said,) = index.notes.of("a.tar").sentences("data.train")
    assert said.startswith("data.train: images passed over") and said.endswith(
        ": 3, such as v1.1.jpg in a.tar"
    )


NOTES = {"images": 1, "image": "a\x1b.jpg", "labels": 2, "label": "b"}


@pytest.mark.parametrize(
    "damaged",
    [{**NOTES, "images": -1}, {**NOTES, "images": True}, {**NOTES, "labels": 1.5}, {"images": 1}, [1], "x"],
)
def test_damaged_notes_are_an_error_and_names_in_them_are_fit_to_be_printed(damaged):
    assert parse_notes(NOTES).image == r"a\x1b.jpg" and parse_notes(None) == NOTHING
    with pytest.raises((ValueError, TypeError, KeyError)):
        parse_notes(damaged)


def test_an_index_survives_the_way_through_its_file(tmp_path):
    index = build_index(shard(tmp_path / "a.tar"))
    again = parse_index(index_bytes(index))
    assert index_bytes(again) == index_bytes(index)
    assert [again.key(i) for i in range(4)] == ["0000", "0001", "0002", "0003"]
    for name in ("checksum", "quick", "shard_bytes"):
        assert getattr(again, name) == getattr(index, name)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_a_damaged_index_is_an_error_or_stays_inside_its_tar(tmp_path_factory, data):
    content = bytearray(index_bytes(build_index(shard(tmp_path_factory.mktemp("index") / "a.tar"))))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)) | st.just(len(content)))
    try:
        index = parse_index(bytes(content[:cut]))
    except ValueError:
        return
    assert (index.offsets >= 0).all() and (index.offsets + index.sizes <= index.shard_bytes).all()
    assert all(isinstance(index.key(i), str) for i in range(len(index)))


def test_the_index_lies_beside_its_tar(tmp_path):
    assert index_path(tmp_path / "a.tar") == tmp_path / "a.tar.index.safetensors"


def manifest() -> Manifest:
    return Manifest(
        ("cat", "dög"), (Shard("a.tar", 3, 5120, "blake2b:1"), Shard("b.tar", 2, 1024, "scan:2")), "p"
    )


def test_a_manifest_survives_the_way_through_its_file(tmp_path):
    write_manifest(tmp_path, manifest())
    assert read_manifest(tmp_path) == manifest()
    assert manifest().images == 5
    assert read_manifest(tmp_path / "nowhere") is None


def test_the_fingerprint_changes_with_names_counts_and_checksums():
    rows = [("a.tar", 3, "x"), ("c.tar", 3, "x"), ("a.tar", 4, "x"), ("a.tar", 3, "y")]
    prints = {
        Manifest((), (Shard(name, images, 9, checksum),)).fingerprint for name, images, checksum in rows
    }
    assert len(prints) == 4


@pytest.mark.parametrize(
    ("old", "new"),
    [('"a.tar"', '"../a.tar"'), ('"images": 3', '"images": -3'), ('"images": 2', '"images": true'),
     ("{", "["),
     ('"raymask-dataset-1"', '"other"'), ("blake2b:1", "blake2b:9"), ('"shards"', '"chards"')],
)  # fmt: skip
def test_a_damaged_manifest_is_one_sentence(tmp_path, old, new):
    write_manifest(tmp_path, manifest())
    path = tmp_path / "dataset.json"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=r"dataset\.json is damaged .*pack the data set again"):
        read_manifest(tmp_path)


def test_indexes_of_equal_tars_have_equal_bytes(tmp_path):
    (tmp_path / "x").mkdir()
    one, two = build_index(shard(tmp_path / "a.tar")), build_index(shard(tmp_path / "x" / "a.tar"))
    assert index_bytes(one) == index_bytes(two)
    assert np.array_equal(one.offsets, two.offsets)
    assert len(picture(0)) == one.sizes[0]
