"""The far side: sizes, names and ranges of bytes of files behind any URL that fsspec opens.

Every error is a `Failure` with a reason in our own words: those of the libraries repeat URLs, and with them
passwords and signatures. fsspec and its protocols are imported when the first URL is opened.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.remote.retry import Failure
from pipelines.remote.urls import is_remote, public

T = TypeVar("T")

CONNECT, SILENCE = 20, 60  # seconds without a connection, without a byte
TAGS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest",
    "LastModified", "Last-Modified", "updated", "mtime", "created",
)  # fmt: skip
_S3 = ("s3", "s3a")
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs"}


@dataclass(frozen=True)
class Stamp:
    """What a file is known by: its size in bytes, and a tag that changes when it is replaced ("" if none)."""

    size: int
    tag: str


def stamp(url: str) -> Stamp:
    """Size and tag of a file, as of now. Raises Failure."""
    files, path = _open(url)

    def ask() -> dict[str, Any]:
        files.invalidate_cache(path)
        return files.info(path)

    about = _try(ask)
    if about.get("size") is None:
        raise Failure("the server does not say how large it is", final=True)
    tag = next((f"{name}:{about[name]}" for name in TAGS if about.get(name)), "")
    return Stamp(int(about["size"]), tag)


def granted(url: str) -> None:
    """Raises Failure where access to a file is denied, whether or not it is there."""
    try:
        stamp(url)
    except Failure as failure:
        if failure.denied:
            raise


def read(url: str, begin: int | None = None, end: int | None = None) -> bytes:
    """The bytes `begin` to `end` of a file, or all of it. Raises Failure.

    A server that does not know ranges gives the whole file: longer than what was asked for.
    """
    files, path = _open(url)
    return _try(lambda: files.cat_file(path, start=begin, end=end))


def listing(pattern: str) -> list[str]:
    """The URLs that match a glob. Raises Failure."""
    files, path = _open(pattern)

    def ask() -> list[str]:
        files.invalidate_cache(path)
        return files.glob(path)

    return sorted(files.unstrip_protocol(name) for name in _try(ask))


def send(path: Path, url: str) -> None:
    """Puts a local file behind a URL, in the place of what was there. Raises Failure."""
    files, there = _open(url)
    _try(lambda: files.put_file(str(path), there))


def bring(url: str, path: Path) -> None:
    """Copies what is behind a URL to a local file. Raises Failure."""
    files, there = _open(url)
    _try(lambda: files.get_file(there, str(path)))


def sizes_below(folder: str) -> dict[str, int]:
    """The files below a folder, by their path in it, with their sizes; none where it does not exist."""
    files, there = _open(folder)

    def ask() -> dict[str, Any]:
        files.invalidate_cache()
        return files.find(there, detail=True)

    inside = there.rstrip("/") + "/"
    return {name.removeprefix(inside): int(about["size"]) for name, about in _try(ask).items()}


def remove_below(folder: str) -> None:
    """Removes a folder with all that is in it. Raises Failure."""
    files, there = _open(folder)
    _try(lambda: files.rm(there, recursive=True))


def _open(url: str) -> tuple[Any, str]:
    """The file system of a URL and the path in it."""
    assert is_remote(url)
    scheme = url.partition("://")[0].lower()
    try:
        from fsspec.core import url_to_fs

        files, path = url_to_fs(url, **_options(scheme))
    except ImportError:
        extra = EXTRAS.get(scheme)
        how = f"pip install 'raymask[{extra}]'" if extra else "install the fsspec package of that protocol"
        raise Failure(f"{scheme}:// is not installed: {how}", final=True) from None
    except ValueError:
        raise Failure(f"fsspec does not know {scheme}:// or cannot read the URL", final=True) from None
    except Exception as error:  # some protocols connect as they are opened
        raise _failure(error) from None
    if scheme in _S3:
        files.retries = 1  # whoever calls is patient, and knows for how long
    return files, path


def _options(scheme: str) -> dict[str, Any]:
    """What a file system is opened with, so that it neither waits for ever nor tries again by itself."""
    if scheme in _S3:
        from fsspec.config import conf

        ours = {"connect_timeout": CONNECT, "read_timeout": SILENCE, "retries": {"total_max_attempts": 1}}
        return {"config_kwargs": {**ours, **conf.get("s3", {}).get("config_kwargs", {})}}
    if scheme not in ("http", "https"):
        return {}
    from aiohttp import ClientTimeout

    silence = ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
    return {"client_kwargs": {"timeout": silence, "trust_env": True}}  # proxies, and passwords from .netrc


def _try(action: Callable[[], T]) -> T:
    try:
        return action()
    except Failure:
        raise
    except Exception as error:
        raise _failure(error) from None  # not `from error`: its text may hold a signed URL


def _failure(error: Exception) -> Failure:
    """What an error of a file system means. Unknown ones may pass, so they are not final."""
    # fsspec says of every HTTP fault on asking for a size that the file is not there.
    cause = error.__cause__
    if isinstance(error, FileNotFoundError) and type(cause).__module__.startswith("aiohttp."):
        return _failure(cause)  # type: ignore[arg-type]  # its module says that there is one
    status = getattr(error, "status", None) or getattr(error, "code", None)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        return Failure("it is not there", missing=True)
    if isinstance(error, PermissionError) or status in (401, 403):
        # S3 says so of missing files, too, to those who may not list the bucket.
        return Failure("access was denied: check the credentials", denied=True)
    if isinstance(status, int) and 400 <= status < 500 and status not in (408, 425, 429):
        return Failure(f"the server refuses with status {status}", final=True)
    if type(error).__name__ in ("NoCredentialsError", "PartialCredentialsError"):
        return Failure("there are no credentials: set them as its protocol wants them", final=True)
    if isinstance(error, NotImplementedError | TypeError):
        return Failure(f"its protocol cannot do this ({type(error).__name__})", final=True)
    if isinstance(status, int):
        return Failure(f"the server answered with status {status}")
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return Failure("the server did not answer in time")
    number = getattr(error, "errno", None)
    if number in _OF_THE_SERVER:
        return Failure(_OF_THE_SERVER[number])
    words = (errno.errorcode.get(number, "") if number else "", type(error).__name__)
    said = " ".join(words).strip()
    return Failure(f"no connection to the server ({said})" if _is_without_connection(error) else said)


# Errors of servers that s3fs tells as if they were those of a disk.
_OF_THE_SERVER = {errno.EIO: "the server failed", errno.EBUSY: "the server is too busy"}


def _is_without_connection(error: Exception) -> bool:
    name = type(error).__name__
    return isinstance(error, ConnectionError) or name.startswith(("ClientConnector", "EndpointConnection"))


def sentence(url: str, failure: Failure) -> str:
    """What to say of a file that cannot be fetched."""
    return f"shard {public(url)} cannot be fetched: {failure.reason}"
