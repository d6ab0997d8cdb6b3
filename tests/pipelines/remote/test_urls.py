"""What may be said of a URL."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipelines.loader import Data
from pipelines.remote.retry import LONGEST, Failure, patiently, pause
from pipelines.remote.urls import (
    below,
    beside,
    has_secrets,
    identity,
    is_remote,
    local,
    name_of,
    public,
    unsupported,
)
from pipelines.source import open_source

WORDS = st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=8, max_size=12)


@given(user=WORDS, password=WORDS, signature=WORDS)
def test_no_secret_is_left_in_the_public_form(user, password, signature):
    url = f"https://{user}:{password}@host.org/a/c.tar?sig={signature}#x"
    assert public(url) == "https://host.org/a/c.tar" and has_secrets(url)
    assert not {user, password, signature} & set(identity(url).replace("?", "/").split("/"))


@pytest.mark.parametrize(
    ("url", "secret"),
    [
        ("s3://bucket/a.tar", False),
        ("s3://key:secret@bucket/a.tar", True),
        ("https://h/a.tar?part=1&version=2", False),
        ("https://h/a.tar?X-Amz-Signature=1", True),
        ("https://h/a.tar?token=1", True),
        ("https://h/mail@home.tar", False),
        ("https://h:8080/a.tar?mail=a@b", False),
        ("https://[::1]:8080/a.tar", False),
        ("https://[fe80::1]/a@b.tar?mail=a@b", True),  # refused rather than shown
        ("s3://bucket/ada@org/a.tar", False),
        ("/data/me@home/shards", False),
    ],
)
def test_urls_with_secrets_are_told_from_others(url, secret):
    assert has_secrets(url) == secret


@given(user=WORDS, parts=st.lists(WORDS, min_size=1, max_size=3), between=st.sampled_from("/?#@:"))
@pytest.mark.parametrize("tail", ["x.tar", "{a,b}/x.tar?part=1", "me@home/x.tar"])
def test_a_password_that_is_not_written_in_percents_is_hidden_whole(tail, user, parts, between):
    url = f"https://{user}:{between.join(['a' + part for part in parts])}@host/{tail}"
    assert has_secrets(url)
    assert not any(word in public(url) for word in (user, *parts))


UNSUPPORTED = [
    "simplecache::http://user:hunter2@h/x.tar",
    "filecache::s3://KEY:hunter2@b/x.tar",
    "zip://a.jpg::http://u:hunter2@h/x.zip",
    "zip://*.jpg::/data/hunter2.zip",
    "http:/user:hunter2@h/x.tar",
    "s3:KEY:hunter2@b/{a,b}.tar",
]


@pytest.mark.parametrize("url", UNSUPPORTED)
def test_forms_of_urls_that_nobody_opens_are_refused_without_repeating_them(url, tmp_path):
    (tmp_path / "list.txt").write_text(url)
    assert has_secrets(url) and "hunter2" not in public(url)
    with pytest.raises(ValidationError, match=r"not supported|two slashes") as in_config:
        Data(train=url)
    for path in (url, f"@{tmp_path}/list.txt"):
        with pytest.raises(ValueError, match=r"not supported|two slashes") as at_once:
            open_source(path)
        assert "hunter2" not in str(at_once.value) + str(in_config.value)


@pytest.mark.parametrize("path", ["/data/a::b", "pipe:curl http://h/x::y", "C:/data", "sqlite:////db", "a:b"])
def test_other_paths_with_colons_are_no_urls_of_a_wrong_form(path):
    assert unsupported(path) is None


def test_the_settings_refuse_a_secret_without_repeating_it():
    with pytest.raises(ValidationError, match=r"https://h/set was given with a password .* @FILE") as error:
        Data(train="https://ada:hunter2@h/set")
    assert "hunter2" not in str(error.value)


def test_urls_are_signed_anew_without_becoming_other_files():
    one, two = (f"https://h/a.tar?part=1&X-Amz-Signature={n}&X-Amz-Date={n}" for n in "12")
    assert identity(one) == identity(two) != identity("https://h/a.tar?part=2")


def test_neighbours_keep_the_query():
    assert below("https://h/set/?token=1", "a.tar") == "https://h/set/a.tar?token=1"
    assert beside("https://h/a.tar?token=1", ".index") == "https://h/a.tar.index?token=1"
    assert name_of("https://h/set/a.tar?token=1") == "a.tar"


def test_file_urls_are_local_paths():
    assert not is_remote("file:///data/a.tar") and local("file:///data/a.tar") == "/data/a.tar"
    assert not is_remote("C:/data") and not is_remote("/data") and is_remote("gs://b/a.tar")


def test_pauses_double_and_are_spread_and_bounded():
    pauses = [pause(attempt, "name") for attempt in range(12)]
    assert pauses == [pause(attempt, "name") for attempt in range(12)]
    assert pauses[5] > 4 * pauses[1] and max(pauses) <= LONGEST
    assert len({pause(0, str(number)) for number in range(20)}) == 20


def test_patience_ends_at_once_where_trying_again_cannot_help():
    calls = []

    def action():
        calls.append(1)
        raise Failure("no", final=len(calls) == 3)

    with pytest.raises(Failure, match="no") as error:
        patiently(action, "name", seconds=60)
    assert len(calls) == 3 and error.value.final and "3 attempts" in error.value.reason
