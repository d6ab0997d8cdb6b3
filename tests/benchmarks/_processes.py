"""What a process and all that it started cost: CPU seconds, and memory at its peak (from /proc: Linux)."""

import os
import threading
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")


def tree(root: int) -> list[int]:
    """The process `root` and all below it."""
    parents: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit() and (fields := _stat(int(path.name))):
            parents.setdefault(int(fields[1]), []).append(int(path.name))
    found, left = [], [root]
    while left:
        found.append(left.pop())
        left += parents.get(found[-1], [])
    return found


def cpu_seconds(root: int) -> float:
    """Of the tree, those that ended included once their parents know."""
    return sum(sum(map(int, fields[11:15])) for pid in tree(root) if (fields := _stat(pid))) / TICK


def started(root: int) -> float:
    """CPU seconds of those below `root` that still run."""
    below = tree(root)[1:]
    return sum(sum(map(int, fields[11:13])) for pid in below if (fields := _stat(pid))) / TICK


def memory(root: int) -> int:
    """Bytes of the tree, what several of them share counted once."""
    return sum(_pss(pid) for pid in tree(root))


class Peak(threading.Thread):
    """Looks at the memory of a tree every so often until it is stopped."""

    def __init__(self, root: int, *, every: float = 1.0):
        super().__init__(daemon=True)
        self.root, self.every, self.bytes, self._over = root, every, 0, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(self.every):
            self.bytes = max(self.bytes, memory(self.root))

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self.bytes


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold blanks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
