"""What can be wrong with a cluster is one sentence, before anything is sent. Small servers stand for it."""

import json
import os
import platform
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import ray

from raymask.distributed import dashboard, packaging, token
from tests.distributed.head import free_ports

HERE = platform.python_version()
TOKEN = "0123456789abcdef" * 4
Answers = dict[str, tuple[int, object]]


@contextmanager
def server(answers: Answers, *, wants: str | None = None) -> Iterator[str]:
    """An HTTP server on this machine that answers these paths; `wants`: the token that it asks for."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            code, body = answers.get(self.path, (404, "no such page"))
            given = self.headers.get("Authorization")
            if wants is not None and self.path != MODE and given != f"Bearer {wants}":
                code, body = (
                    (403, "Forbidden: Invalid token") if given else (401, "Unauthorized: Missing token")
                )
            text = body if isinstance(body, str) else json.dumps(body)
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments: object) -> None: ...

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}"
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()


MODE = "/api/authentication_mode"


def cluster(*, ray_version: str = ray.__version__, python: str = HERE, mode: str = "token") -> Answers:
    """What a dashboard of Ray 2.60 says to who asks for what `connect` asks for."""
    return {
        MODE: (200, {"authentication_mode": mode}),
        "/api/version": (
            200,
            {"version": "4", "ray_version": ray_version, "ray_commit": "", "session_name": ""},
        ),
        "/api/v0/cluster_metadata": (200, {"data": {"rayVersion": ray_version, "pythonVersion": python}}),
    }


@pytest.fixture(autouse=True)
def _at_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home without a token, and an environment that says nothing of Ray's; both come back afterwards."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in [name for name in os.environ if name.startswith("RAY_")]:
        monkeypatch.delenv(name)
    for name in ("RAY_AUTH_MODE", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "")  # so that what is set below is taken back
        monkeypatch.delenv(name)


def refused(address: str) -> str:
    with pytest.raises(ValueError, match=r"\S") as error:
        dashboard.connect(address)
    sentence = str(error.value)
    assert len(sentence.splitlines()) == 1 and TOKEN not in sentence
    return sentence


def test_nobody_at_the_address():
    (port,) = free_ports(1)
    said = refused(f"http://127.0.0.1:{port}")
    assert re.fullmatch(
        r"there is no Ray cluster at \S+ \(connection refused\): start one, .* --address=\S+", said
    )


def test_a_name_that_nobody_has():
    assert "there is no Ray cluster at http://no-such-host.invalid:8265" in refused(
        "http://no-such-host.invalid:8265"
    )


def test_who_answers_late_counts_as_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dashboard, "_FIRST", 0.2)
    free = threading.Event()

    class Slow(dict):
        def get(self, *arguments: object) -> tuple[int, str]:
            free.wait(5)
            return 200, "{}"

    with server(Slow()) as address:
        said = refused(address)
        free.set()
    assert "no answer within 0.2 seconds" in said or "timed out" in said


@pytest.mark.parametrize("answers", [{}, {MODE: (200, "<html>")}, {MODE: (200, [1])}, {MODE: (200, {})}])
def test_something_else_answers(answers: Answers):
    with server(answers) as address:
        assert refused(address) == (
            f"what answers at {address} is no Ray dashboard: its port is 8265 where none was set"
        )


def test_a_dead_head():
    with server({MODE: (503, "GCS is gone")}) as address:
        assert f"the head of the cluster at {address} is dead or fails (HTTP 503)" in refused(address)


def test_no_token():
    with server(cluster(), wants=TOKEN) as address:
        assert refused(address) == (
            f"the cluster at {address} asks for a token: put it in RAY_AUTH_TOKEN, a file named by "
            "RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token"
        )


PLACES: dict[str, Callable[[Path], dict[str, str]]] = {
    "an empty variable": lambda home: {"RAY_AUTH_TOKEN": " "},
    "a path to nothing": lambda home: {"RAY_AUTH_TOKEN_PATH": str(home / "none")},
    "a path to a folder": lambda home: {"RAY_AUTH_TOKEN_PATH": str(home)},
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
def test_a_place_without_a_token_is_named_before_ray_ends_the_process_over_it(
    place, tmp_path: Path, monkeypatch
):
    for name, value in place(tmp_path).items():
        monkeypatch.setenv(name, value)
    with server(cluster(), wants=TOKEN) as address:
        said = refused(address)
    assert "RAY_AUTH_TOKEN is set and empty" in said or str(tmp_path) in said


def test_a_token_is_found_where_ray_looks_and_named_by_its_place(tmp_path: Path, monkeypatch):
    assert token.place() is None and token.file() is None
    default = tmp_path / ".ray" / "auth_token"
    default.parent.mkdir()
    default.write_text(TOKEN)
    assert token.place() == f"the file {default}" and token.file() == default
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(default))
    assert token.place() == f"the file {default}"
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    assert token.place() == "RAY_AUTH_TOKEN"


VERSIONS = {
    "another Ray": (
        {"ray_version": "2.59.1"},
        f"runs Ray 2.59.1, here it is {ray.__version__}: use an environment",
    ),
    "another Python": ({"python": "3.9.2"}, f"runs Python 3.9.2, here it is {HERE}: use"),
    "both": (
        {"ray_version": "2.1.0", "python": "3.9.2"},
        f"Ray 2.1.0, here it is {ray.__version__} and Python",
    ),
}

# Ray reads the token once in a process, so who sends one is a process of its own.
CONNECT = """
import sys
from raymask.distributed.dashboard import connect
try:
    connect(sys.argv[1])
except ValueError as error:
    print(error)
else:
    print("connected")
"""


def connected(address: str, home: Path, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", CONNECT, address],
        env={**kept, "HOME": str(home), **environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    ).stdout.strip()


@pytest.mark.parametrize(("differs", "sentence"), VERSIONS.values(), ids=VERSIONS)
def test_other_versions_on_the_cluster(differs: dict[str, str], sentence: str):
    with server(cluster(**differs, mode="disabled")) as address:
        assert sentence in refused(address)


def test_another_patch_of_python_is_no_other_version():
    other = ".".join([*HERE.split(".")[:2], "99"])
    with server(cluster(python=other, mode="disabled")) as address:
        dashboard.connect(address)


def test_the_token_is_sent_and_a_wrong_one_is_refused_by_the_place_it_came_from(tmp_path: Path):
    with server(cluster(), wants=TOKEN) as address:
        assert connected(address, tmp_path, RAY_AUTH_TOKEN=TOKEN) == "connected"
        said = connected(address, tmp_path, RAY_AUTH_TOKEN="f" * 64)
    assert said == (
        f"the cluster at {address} refuses the token in RAY_AUTH_TOKEN: it has expired or is another "
        "cluster's; ask whoever started the cluster for its own"
    )


ADDRESSES = {
    ("http://a:1/", None, ""): "http://a:1",
    ("a:1", None, "http://c:3"): "http://a:1",
    (None, "http://b:2", "http://c:3"): "http://b:2",
    (None, "10.0.0.5:6379", ""): "http://10.0.0.5:8265",
    (None, "auto", "http://c:3"): "http://c:3",
    (None, None, "10.0.0.5:6379"): "http://127.0.0.1:8265",
    (None, None, ""): "http://127.0.0.1:8265",
}


@pytest.mark.parametrize(("asked", "found"), ADDRESSES.items(), ids=str)
def test_the_dashboard_is_where_it_was_last_named(asked, found: str, monkeypatch: pytest.MonkeyPatch):
    given, configured, environment = asked
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", environment)
    assert dashboard.find_address(given, configured=configured) == found


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="the address ray://a:10001 is no dashboard's"):
        dashboard.find_address("ray://a:10001")


def test_too_much_to_send_is_said_at_once_with_what_is_largest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(packaging, "LIMIT", 5000)
    (tmp_path / "photos").mkdir()
    for name, size in (("photos/a.jpg", 4000), ("photos/b.jpg", 3000), ("train.py", 10)):
        (tmp_path / name).write_bytes(b"0" * size)
    with pytest.raises(ValueError, match=r"has more than .* to send \(so far photos"):
        packaging.look(tmp_path)
    (tmp_path / ".rayignore").write_text("photos/\n")
    assert packaging.look(tmp_path).files == {"train.py", ".rayignore"}


def test_what_is_counted_is_what_ray_packs(tmp_path: Path):
    from zipfile import ZipFile

    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import create_package

    folder = tmp_path / "project"
    for name in ("a.py", "sub/b.py", "sub/deep/c.txt", "big/d.bin", ".venv/e", ".git/f", "__pycache__/g"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / ".gitignore").write_text("big/\n")
    (folder / "sub" / ".rayignore").write_text("*.txt\n")
    create_package(
        str(folder),
        tmp_path / "package.zip",
        include_gitignore=True,
        excludes=get_runtime_env_default_excludes(),
    )
    with ZipFile(tmp_path / "package.zip") as package:
        packed = {name for name in package.namelist() if not name.endswith("/")}
    found = packaging.look(folder)
    assert found.files == packed == {"a.py", "sub/b.py", ".gitignore", "sub/.rayignore"}
    assert found.bytes == sum((folder / name).stat().st_size for name in packed)


def test_a_config_that_is_left_out_and_a_token_that_is_not_are_refused(tmp_path: Path):
    (tmp_path / ".rayignore").write_text("*.yaml\n")
    (tmp_path / "mine.yaml").write_text("")
    secret = tmp_path / "secret"
    secret.write_text(TOKEN)
    package = packaging.look(tmp_path)
    with pytest.raises(ValueError, match=r"mine\.yaml would not reach the job: \.gitignore or \.rayignore"):
        packaging.check(package, needed=("mine.yaml",), token=None)
    with pytest.raises(ValueError, match="would be sent with the job: move it out of"):
        packaging.check(package, needed=(), token=secret)
    (tmp_path / ".rayignore").write_text("secret\n")
    packaging.check(packaging.look(tmp_path), needed=("mine.yaml",), token=secret)
