"""What a path names: lists of shards, braces, globs, URLs, and commands where they are allowed."""

import glob
import re
from itertools import product
from pathlib import Path

from pipelines.pipe import PIPE, spool
from pipelines.remote.opening import find, read_text
from pipelines.remote.settings import Cache
from pipelines.remote.urls import is_remote, local, public, unsupported

DEFAULT_CACHE = Cache()
MOST = 10_000_000  # files that one pair of braces may stand for


def expand(
    path: str, *, cache: Cache = DEFAULT_CACHE, allow_pipe: bool = False, inside: tuple[str, ...] = ()
) -> list[str]:
    """The files that a path names: `@file` lists, `{000..012}` and `{a,b}` braces, `*`, `?` and `[` globs.

    cache: how patiently URLs are asked, and where the output of `pipe:COMMAND` is kept, if `allow_pipe`
    inside: the lists that led here
    """
    if path.startswith(PIPE):
        if not allow_pipe:
            raise ValueError(
                f"{_shown(path)} would run a shell command: pipes are refused, give the tars themselves, "
                "or set data.allow_pipe=true (to pack: allow_pipe=true) if you trust whoever wrote it"
            )
        return [str(spool(one, cache)) for one in _braces(path, words=False)]
    if why := unsupported(path):
        raise ValueError(why)
    path = local(path)
    if is_remote(path):
        return [name for one in _braces(path) for name in find(one, seconds=cache.opening)]
    if path.startswith("@"):
        if path in inside:
            raise ValueError(f"the list of shards {public(path[1:])} leads to itself, in a circle")
        lines = [line.strip() for line in _text(path[1:], cache).splitlines()]
        named = [line for line in lines if line and not line.startswith("#")]
        if not named:
            raise ValueError(f"the list of shards {public(path[1:])} names nothing: give it a path a line")
        below = (*inside, path)
        lists = (expand(line, cache=cache, allow_pipe=allow_pipe, inside=below) for line in named)
        return [name for names in lists for name in names]
    if Path(path).exists():
        return [path]
    found = [name for one in _braces(path) for name in (_glob(one) if glob.has_magic(one) else [one])]
    if not found:
        raise ValueError(f"no file matches {path}")
    return found


def located(path: str, *, here: Path) -> tuple[str, bool]:
    """A path of this machine, or a list by its `@file`, made absolute; and whether there can be something.

    Links stay as they are: on another machine they may lead elsewhere.
    """
    mark, bare = ("@", path[1:]) if path.startswith("@") else ("", path)
    found = (here / Path(bare).expanduser()).absolute()
    return f"{mark}{found}", found.exists() or any(sign in bare for sign in "*?[{")


def _shown(command: str) -> str:
    """As much of a command as can hold no password."""
    return repr(" ".join([*command.split()[:1], *["..."] * (len(command.split()) > 1)]))


def _text(path: str, cache: Cache) -> str:
    try:
        return read_text(path, seconds=cache.opening) if is_remote(path) else Path(local(path)).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"the list of shards {public(path)} cannot be read: {error}") from None


def _glob(pattern: str) -> list[str]:
    base = Path(Path(pattern).anchor)
    return sorted(map(str, base.glob(str(Path(pattern).relative_to(base)))))


def _braces(path: str, *, words: bool = True) -> list[str]:
    """`a{00..11}b` and, if `words`, `a{x,y}b`, as a shell would spell them out."""
    pieces = re.split(r"\{([^{}]*)\}" if words else r"\{(\d+\.\.\d+)\}", path)
    choices = [[text] if i % 2 == 0 else _choices(text) for i, text in enumerate(pieces)]
    return ["".join(parts) for parts in product(*choices)]


def _choices(inside: str) -> list[str]:
    if span := re.fullmatch(r"(\d+)\.\.(\d+)", inside):
        low, high = span.groups()
        if int(high) - int(low) > MOST:
            raise ValueError(f"{{{inside}}} names more than {MOST:,} files")
        width = max(len(low), len(high)) if "0" in (low[0], high[0]) else 0
        return [f"{number:0{width}d}" for number in range(int(low), int(high) + 1)]
    return inside.split(",")
