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
# What nobody can take for a path: a scheme with one slash, and one with a user and a password behind it.
BROKEN = re.compile(r"(?!pipe:)[a-z][a-z0-9+.-]+:(/(?!/)|[^/]+:.*@)", re.IGNORECASE)


def is_remote(path: str) -> bool:
    """Whether a path is a URL; `file://` is a local path."""
    return bool(SCHEME.match(path)) and not path.lower().startswith("file://")


def local(path: str) -> str:
    """The plain path of a `file://` URL; other paths as they are."""
    return path[len("file://") :] if path.lower().startswith("file://") else path


def unsupported(path: str) -> str | None:
    """Why a path is a URL of a form that nobody opens, without repeating it; None for all others."""
    scheme = path.partition(":")[0]
    if _is_chain(path):
        return (
            f"a URL that begins with {scheme!r} joins protocols by '::', which is not supported: give the "
            "plain URL of shards, of which copies are kept without that; images in archives are packed first"
        )
    if BROKEN.match(path):
        return f"a path that begins with {scheme + ':'!r} is no URL without two slashes: give {scheme}://..."
    return None


def public(url: str) -> str:
    """The URL without user, password, query and fragment; a local path as it is."""
    if unsupported(url):
        return f"{url.partition(':')[0]}:..."
    if not is_remote(url):
        return url
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{re.split(r'[?#]', rest[_end_of_user(rest) :], maxsplit=1)[0]}"


def has_secrets(url: str) -> bool:
    """Whether a URL holds a user or password, or a query that looks like a signature.

    True of forms that are not supported, too, in which nobody can tell.
    """
    if unsupported(url):
        return True
    if not is_remote(url):
        return False
    signed = any(SIGNING.fullmatch(name) for name, _ in _query(url))
    return signed or _end_of_user(url.partition("://")[2]) > 0


def identity(url: str) -> str:
    """What makes two URLs the same file, however they are signed. Not for messages: use `public`."""
    asked = [(name, value) for name, value in _query(url) if not SIGNING.fullmatch(name)]
    scheme, _, rest = url.partition("://")
    host, slash, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}?{urlencode(asked)}"


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


def _is_chain(path: str) -> bool:
    """Whether a path is one of fsspec's chains; the colons of an IPv6 address stand in brackets."""
    return "://" in path and "::" in re.sub(r"\[[^\]]*\]", "", path) and not path.startswith("pipe:")


def _end_of_user(rest: str) -> int:
    """Where user and password end in what follows a scheme; 0 where there are none.

    Passwords hold slashes, and marks of a query, that should have been written in percents: with a user, or a
    colon before the first slash, all up to the last @ counts as secret, though it may be part of the path.
    """
    host = re.split(r"[/?#]", rest, maxsplit=1)[0]
    place = re.split(r"[?#]", rest, maxsplit=1)[0]
    if "@" in host or (":" in host and "@" in place):
        return place.rindex("@") + 1
    # host:8080?mail=a@b has none
    return rest.rfind("@") + 1 if re.search(r":\d*[^\d:\]][^\]]*$", host) else 0


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query, keep_blank_values=True) if "?" in url else []
