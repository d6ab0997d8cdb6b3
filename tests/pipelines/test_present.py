"""What is not there is said before anything is started, and nothing is opened for it."""

from pathlib import Path

import pytest

from pipelines.data import Data
from pipelines.present import check_present
from pipelines.remote.settings import Cache
from tests.conftest import write_photos
from tests.distributed.head import free_ports


def test_data_that_are_there_pass_however_they_are_named(tmp_path: Path):
    photos = write_photos(tmp_path / "photos", per_class=2)
    (tmp_path / "a-000.tar").write_bytes(b"")
    (tmp_path / "a-001.tar").write_bytes(b"")
    (tmp_path / "list.txt").write_text(f"{tmp_path}/a-000.tar\n")
    for named in (photos, f"{tmp_path}/a-*.tar", f"{tmp_path}/a-{{000..001}}.tar", f"@{tmp_path}/list.txt"):
        check_present(Data(train=str(named), val=str(photos)))
    check_present(Data(train="pipe:cat /no/such.tar"))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("nowhere", "/nowhere: the path does not exist"),
        ("a-{000..002}.tar", "/a-000.tar: the path does not exist"),
        ("b-*.tar", "no file matches"),
        ("empty", "/empty is empty: check the path"),
        ("@nowhere.txt", "cannot be read"),
    ],
)
def test_data_that_are_not_there_are_named_with_their_setting(tmp_path: Path, given: str, sentence: str):
    (tmp_path / "empty").mkdir()
    mark = "@" if given.startswith("@") else ""
    path = f"{mark}{tmp_path}/{given.removeprefix('@')}"
    for key in ("train", "val"):
        with pytest.raises(ValueError, match=r"no file|cannot be read|data") as refused:
            check_present(Data(**{"train": str(write_photos(tmp_path / key, per_class=1)), key: path}))
        assert sentence in str(refused.value)


def test_a_server_that_is_not_there_is_noticed():
    (free_port,) = free_ports(1)
    for path in ("a.tar", "shards"):
        url = f"http://127.0.0.1:{free_port}/{path}"
        with pytest.raises(ValueError, match="cannot be opened"):
            check_present(Data(train=url, cache=Cache(opening=0)))
