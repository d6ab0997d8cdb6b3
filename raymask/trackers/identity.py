"""Who a run is to its trackers: kept in the run directory, so that a run that goes on is the same run."""

import json
import threading
from pathlib import Path
from uuid import uuid4

from raymask.run import write_json

FILE = "trackers.json"


class Identity:
    """trackers.json: a name that no other run has, what each tracker calls this one, and what it knows of it.

    Thread-safe.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE
        self._lock = threading.Lock()
        self._known: dict[str, str] = json.loads(self._file.read_text()) if self._file.exists() else {}
        if "id" not in self._known:
            self.keep("id", uuid4().hex[:16])

    @property
    def id(self) -> str:
        """The run's own name for itself."""
        return self._known["id"]

    def called(self, where: str) -> str | None:
        """What the run is called there (a kind of tracker and its place), or None if it never was."""
        return self._known.get(where)

    def reached(self, where: str) -> int:
        """The last step of which it was told there, -1 before any."""
        return int(self._known.get(f"reached {where}", -1))

    def reach(self, where: str, step: int) -> None:
        """Remembers a step of which it was told there."""
        if step != self.reached(where):
            self.keep(f"reached {where}", str(step))

    def keep(self, where: str, name: str) -> None:
        """Remembers what the run is called there."""
        with self._lock:
            self._known[where] = name
            write_json(self._file, self._known)
