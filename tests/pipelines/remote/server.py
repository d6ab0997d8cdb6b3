"""A web server on loopback with ranges, tags and faults: over a folder, or before another server."""

import hashlib
import http.client
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PASSED_ON = ("content-type", "content-range", "etag", "last-modified", "accept-ranges", "x-amz-request-id")


@dataclass(frozen=True)
class Reply:
    """What is answered. cut: bytes of the body after which the connection is closed; delay: seconds before"""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    cut: int | None = None
    delay: float = 0.0


Origin = Callable[[str, str, Mapping[str, str], bytes], Reply]
Fault = Callable[[str, str, int, Reply], Reply]  # (method, path, how often it was asked for, the good reply)


def flawless(method: str, path: str, count: int, reply: Reply) -> Reply:
    return reply


def of_folder(root: Path, *, ranges: bool = True) -> Origin:
    """The files below a folder, and an index page of links for each folder."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        file = root / path.partition("?")[0].lstrip("/")
        if file.is_dir():
            page = "".join(f'<a href="{one.name}">{one.name}</a>' for one in sorted(file.iterdir()))
            return Reply(200, {"Content-Type": "text/html"}, page.encode())
        if not file.is_file():
            return Reply(404)
        data = file.read_bytes()
        tag = {"ETag": f'"{hashlib.md5(data).hexdigest()}"'}
        asked = headers.get("Range")
        if not (ranges and asked):
            return Reply(200, tag, data)
        first, _, last = asked.removeprefix("bytes=").partition("-")
        begin, end = int(first), min(int(last or len(data)), len(data) - 1)
        place = {"Content-Range": f"bytes {begin}-{end}/{len(data)}"}
        return Reply(206, tag | place, data[begin : end + 1])

    return answer


def before(host: str, port: int) -> Origin:
    """What another server answers."""

    def answer(method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        connection = http.client.HTTPConnection(host, port)
        try:
            connection.request(method, path, body or None, dict(headers))
            found = connection.getresponse()
            kept = {name: value for name, value in found.getheaders() if name.lower() in PASSED_ON}
            if method == "HEAD":
                kept["Content-Length"] = found.getheader("Content-Length", "0")
            return Reply(found.status, kept, found.read())
        finally:
            connection.close()

    return answer


class Server:
    """Runs on a free port of loopback while its `with` block does.

    `asked` counts requests by method and path; `fault` may be exchanged at any time.
    """

    def __init__(self, origin: Origin, fault: Fault = flawless) -> None:
        self.origin, self.fault = origin, fault
        self.asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def reply(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        plain = path.partition("?")[0]
        with self._lock:
            self.asked[method, plain] += 1
            count = self.asked[method, plain]
        return self.fault(method, plain, count, self.origin(method, path, headers, body))

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                reply = server.reply(self.command, self.path, dict(self.headers), body)
                time.sleep(reply.delay)
                self.send_response(reply.status)
                length = {} if "Content-Length" in reply.headers else {"Content-Length": str(len(reply.body))}
                for name, value in {**reply.headers, **length}.items():
                    self.send_header(name, value)
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(reply.body[: reply.cut])
                if reply.cut is not None:
                    self.wfile.flush()
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

            def log_message(self, format: str, *values: object) -> None:
                pass

        return Handler


@contextmanager
def serving(root: Path, fault: Fault = flawless, *, ranges: bool = True) -> Iterator[Server]:
    """A server of the files below a folder."""
    with Server(of_folder(root, ranges=ranges), fault) as server:
        yield server


def slow(method: str, path: str, count: int, reply: Reply) -> Reply:
    """Every answer comes late."""
    return replace(reply, delay=0.03)


def stumbling(method: str, path: str, count: int, reply: Reply) -> Reply:
    """The first two answers for every file are errors of the server."""
    return Reply(503 if count == 1 else 500, {}, b"<html>try again</html>") if count <= 2 else reply


def cut(method: str, path: str, count: int, reply: Reply) -> Reply:
    """Every second answer for every shard, index and manifest ends in its middle."""
    whole = method != "GET" or path.endswith("/") or count % 2 == 0
    return reply if whole else replace(reply, cut=len(reply.body) // 2)


FAULTS: dict[str, Fault] = {"none": flawless, "slow": slow, "status 500": stumbling, "cut": cut}
