"""Pipes, devices and endless files among the images: never waited for, never read, counted and named."""

import os
import socket
import zipfile
from pathlib import Path

import pytest

from pipelines.decode import BadSample
from pipelines.regular import MAX_BYTES, open_regular, read_at
from pipelines.source import open_source
from tests.pipelines.test_faults import PLACE, check_replaced, folder, good, key, put, tar

RECORD = 10240


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def an_endless_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)


@pytest.mark.parametrize("make", [a_pipe, an_endless_device, a_socket])
def test_what_is_no_file_behind_the_name_of_an_image_is_replaced_without_being_read(
    tmp_path, monkeypatch, make
):
    images = folder(tmp_path / "images", b"", f"{key(PLACE)}.jpg")
    monkeypatch.chdir(images)
    (images / f"{key(PLACE)}.jpg").unlink()
    make(images / f"{key(PLACE)}.jpg")
    check_replaced(images, "link or device", tmp_path)


def test_links_to_files_and_folders_are_followed_as_ever(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(good(1))
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "elsewhere" / "b.jpg")
    (tmp_path / "images" / "c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "images" / "a").mkdir()
    (tmp_path / "images" / "a.jpg").rename(tmp_path / "images" / "a" / "a.jpg")
    source = open_source(tmp_path / "images")
    assert [source.read(n) for n in range(len(source))] == [good(1)] * 2


@pytest.mark.parametrize("name", ["a.tar", "a.beton", "a.zip", "x-images-idx3-ubyte"])
def test_a_pipe_with_the_name_of_a_data_set_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(ValueError, match=f"{name} is .*pipe"):
        open_source(tmp_path / name)


def test_a_file_of_more_bytes_than_any_image_has_is_replaced_without_being_read(tmp_path):
    images = folder(tmp_path / "images", good(PLACE), f"{key(PLACE)}.jpg")
    os.truncate(images / f"{key(PLACE)}.jpg", 40 << 30)
    check_replaced(images, "too many bytes", tmp_path)


def test_a_member_of_a_tar_of_more_bytes_than_any_image_has_is_replaced_without_being_read(tmp_path):
    path = tar(tmp_path / "a.tar", lambda file: put(file, f"{key(PLACE)}.jpg", b""))
    whole = path.read_bytes()
    header = whole.index(f"{key(PLACE)}.jpg".encode())
    with path.open("r+b") as file:  # the same tar, with a hole for what this member claims
        size = (MAX_BYTES // RECORD + 1) * RECORD  # whole records, as tar pads to
        claims = bytearray(whole[header : header + 512])
        claims[124:136] = b"%011o\0" % size
        claims[148:156] = b" " * 8
        claims[148:156] = b"%06o\0 " % sum(claims)
        file.seek(header)
        file.write(claims)
        file.seek(header + 512 + size)
        file.write(whole[header + 512 :])
    check_replaced(path, "too many bytes", tmp_path)


def test_a_member_of_a_zip_of_more_bytes_than_any_image_has_is_one_bad_sample(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a/0.jpg", good(0))
        file.writestr("a/1.jpg", bytes(5000))
    monkeypatch.setattr("pipelines.formats.zipped.MAX_BYTES", 4999)
    source = open_source(tmp_path / "a.zip")
    assert source.read(0) == good(0)
    with pytest.raises(BadSample, match="too many bytes"):
        source.read(1)


def test_what_the_system_gives_in_pieces_is_read_in_full(tmp_path, monkeypatch):
    whole = os.urandom(1000)
    (tmp_path / "a").write_bytes(whole)
    file, pread = open_regular(tmp_path / "a"), os.pread
    monkeypatch.setattr(os, "pread", lambda file, size, offset: pread(file, min(size, 300), offset))
    assert read_at(file, 900, 50) == whole[50:950] and read_at(file, 900, 500) == whole[500:]
    os.close(file)
