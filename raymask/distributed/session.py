"""The folder in which Ray keeps the sockets and logs of a cluster, which goes with a cluster of our own."""

import shutil
import time
from contextlib import suppress
from pathlib import Path

_LAST = 5.0  # seconds in which processes that are ending may still write a line


def own_session() -> Path | None:
    """The folder of the cluster that this process has started; None where it has joined another."""
    from ray._private import worker

    node = worker._global_node
    return Path(node.get_session_dir_path()) if node is not None and node.is_head() else None


def remove_session(session: Path) -> None:
    """Removes the folder of a cluster that has ended, and links beside it that would lead nowhere.

    A link that stays would keep later clusters from setting theirs (session_latest). What cannot be removed
    stays: it is a matter of 2 MB.
    """
    if session.is_symlink() or not session.name.startswith("session_"):
        return
    until = time.monotonic() + _LAST
    while session.exists() and time.monotonic() < until:
        shutil.rmtree(session, ignore_errors=True)
        time.sleep(0.1)
    with suppress(OSError):
        for link in session.parent.iterdir():
            if link.is_symlink() and link.readlink().is_relative_to(session):
                link.unlink()
