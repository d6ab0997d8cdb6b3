"""The token of a cluster: found where Ray looks for it, named by its place, never shown or passed on."""

import os
from pathlib import Path

_VALUE, _PATH, _MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"
PLACES = f"{_VALUE}, a file named by {_PATH}, or ~/.ray/auth_token"


def place() -> str | None:
    """Where the token comes from, in words, or None without one.

    Raises ValueError for a place that is named and holds none: Ray itself would end the process.
    """
    if _VALUE in os.environ:
        if not os.environ[_VALUE].strip():
            raise ValueError(f"{_VALUE} is set and empty: unset it, or put the cluster's token in it")
        return _VALUE
    path = _path()
    try:
        if path.read_text().strip():
            return f"the file {path}"
        problem = "is empty"
    except (OSError, UnicodeDecodeError) as error:
        problem = f"cannot be read ({getattr(error, 'strerror', None) or 'no text'})"
        if not os.environ.get(_PATH) and isinstance(error, FileNotFoundError):
            return None
    raise ValueError(f"the token file {path} {problem}: write the cluster's token into it, or remove it")


def file() -> Path | None:
    """The file that holds the token, or None where none does."""
    path = _path()
    return path.resolve() if path.is_file() else None


def close() -> None:
    """Has nobody else read the token of this user; Ray writes that of a local cluster readable for all."""
    path = _path()
    if path.exists() and path.stat().st_uid == os.getuid():
        path.chmod(0o600)


def _path() -> Path:
    """The file that Ray reads it from, and writes it to."""
    named = os.environ.get(_PATH)
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def switch_on() -> str | None:
    """Has Ray send the token where there is one, unless RAY_AUTH_MODE is set; before Ray is imported."""
    found = place()
    if found is not None:
        os.environ.setdefault(_MODE, "token")
    return found


def missing() -> str:
    """What to do about a cluster that asks for a token which this process does not send."""
    if os.environ.get(_MODE, "token") != "token":
        return f"{_MODE}={os.environ[_MODE]} keeps it from being sent: unset it"
    return f"put it in {PLACES}"
