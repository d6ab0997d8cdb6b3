"""What a tracker is, and what it is told of its run."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from raymask.trackers.identity import Identity


class Tracker(Protocol):
    """Somewhere that follows a run. It may be slow and it may fail: the run neither waits for it nor ends."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """What was measured after `step` steps; finite numbers by name."""

    def close(self) -> None:
        """The run ends here, for now."""


@dataclass(frozen=True)
class About:
    """A run, as its trackers know it.

    folder: the run directory; name: what people call the run; config: its tree of plain values
    begin: the first step whose lines come now: what a tracker has from there on is of no account
    """

    folder: Path
    name: str
    config: dict[str, Any]
    begin: int
    identity: Identity

    @property
    def home(self) -> Path:
        """Where stores lie that several runs share: beside the run directories."""
        return self.folder.parent
