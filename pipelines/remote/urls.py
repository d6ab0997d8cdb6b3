"""URLs of shards: what may be said of them, and what must not.

A URL can hold a password or a signature. `public` is the form for messages, logs and names; the full one goes
to the file system that opens it, and nowhere else.
"""

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

SHARDS = (".tar", ".beton")
SCHEME = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
SIGNING = re.compile(
    r"x-(amz|goog|ms)-.*|.*(sig|signature|token|secret|password|credential|key|policy).*|expires|se|sp|sv|sr|st",
    re.IGNORECASE,
)


def is_remote(path: str) -> bool:
    """Whether a path is a URL; `file://` is a local path."""
    return bool(SCHEME.match(path)) and not path.lower().startswith("file://")


def local(path: str) -> str:
    """The plain path of a `file://` URL; other paths as they are."""
    return path[len("file://") :] if path.lower().startswith("file://") else path


def public(url: str) -> str:
    """The URL without user, password, query and fragment; a local path as it is."""
    if not is_remote(url):
        return url
    scheme, _, rest = url.partition("://")
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    host, slash, path = place.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}"


def has_secrets(url: str) -> bool:
    """Whether a URL holds a user or password, or a query that looks like a signature."""
    if not is_remote(url):
        return False
    host = re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]
    return "@" in host or any(SIGNING.fullmatch(name) for name, _ in _query(url))


def identity(url: str) -> str:
    """What makes two URLs the same file, however they are signed."""
    asked = [(name, value) for name, value in _query(url) if not SIGNING.fullmatch(name)]
    return f"{public(url)}?{urlencode(asked)}"


def below(folder: str, name: str) -> str:
    """The URL of a file in a folder; a query stays behind the path."""
    place, mark, rest = folder.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{rest}"


def beside(url: str, suffix: str) -> str:
    """The URL of the file whose name continues that of `url`."""
    place, mark, rest = url.partition("?")
    return f"{place}{suffix}{mark}{rest}"


def name_of(url: str) -> str:
    """The file name at the end of a URL."""
    return public(url).rstrip("/").rpartition("/")[2]


def is_shard(url: str) -> bool:
    """Whether a URL names a shard, by how it ends."""
    return name_of(url).lower().endswith(SHARDS)


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True) if "?" in url else []
