"""A folder behind a URL, exchanged file by file with as much patience as a network needs."""

import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from pipelines.remote import store
from pipelines.remote.retry import Failure, patiently
from pipelines.remote.urls import below, public

T = TypeVar("T")

_PATIENCE = 600.0  # seconds for which one file may fail to go through
_SAID = 3  # attempts after which it is said that there are more
_ADVICE = "; 'raymask resume' goes on once it can be, or with run.mirror=null from what this disk holds"


@dataclass(frozen=True)
class Bucket:
    """The folder behind `url`, which is run.mirror. Its methods raise OSError for what never goes through."""

    url: str

    def text(self, name: str) -> str:
        """What a file says."""
        return self._try(lambda: store.read(self._at(name)), name).decode()

    def sizes(self, folder: str) -> dict[str, int]:
        """The files below a folder, by their path in it, with their sizes in bytes."""
        return self._try(lambda: store.sizes_below(self._at(folder)), folder or "the run")

    def send(self, path: Path, name: str) -> None:
        """Puts a local file there, in the place of what was there."""
        self._try(lambda: store.send(path, self._at(name)), name)

    def write(self, text: str, name: str) -> None:
        """Makes a file say this."""
        with tempfile.TemporaryDirectory() as beside:
            path = Path(beside) / "text"
            path.write_text(text)
            self.send(path, name)

    def bring(self, name: str, path: Path) -> None:
        """Copies a file from there."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._try(lambda: store.bring(self._at(name), path), name)

    def remove(self, name: str) -> None:
        """Removes a file, or a folder with all that is in it; "" is all."""
        self._try(lambda: store.remove_below(self._at(name)), name or "the run")

    def _at(self, name: str) -> str:
        return below(self.url, name) if name else self.url

    def _try(self, action: Callable[[], T], name: str) -> T:
        where, failed = f"run.mirror={public(self.url)}", 0

        def attempt() -> T:
            nonlocal failed
            try:
                return action()
            except Failure as failure:
                failed += 1
                if failed == _SAID and not failure.final:
                    text = f"{where} fails ({failure.reason}): {name} is tried for {_PATIENCE:.0f} s"
                    tqdm.write(text, file=sys.stderr)
                raise

        try:
            return patiently(attempt, name, seconds=_PATIENCE)
        except Failure as failure:
            raise OSError(f"{name} cannot be exchanged with {where}: {failure.reason}{_ADVICE}") from None
