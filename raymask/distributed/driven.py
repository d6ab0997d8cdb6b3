"""A run that this process drives on a cluster: how it is, and what it ends with if it is asked to stop."""

import threading
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

from raymask.config import Config
from raymask.distributed.bell import Bell
from raymask.distributed.lifeline import Lifeline
from raymask.distributed.places import Waiting
from raymask.distributed.preflight import Request
from raymask.distributed.starting import Starting
from raymask.driver import note
from raymask.signals import Stopped, StopRequest, asked_to_stop


@dataclass(frozen=True)
class Driven:
    """A run that this process drives: what it asks of the cluster, and what may happen to it.

    noted: while its mark says what it waits for
    """

    config: Config
    asked: Request
    folder: Path
    mark: Path
    noted: threading.Event
    stop: StopRequest
    bell: Bell
    places: Waiting
    starting: Starting
    lifeline: Lifeline

    def stopped(self) -> Stopped:
        """What a run ends with that was asked to stop."""
        then = f"continue with 'raymask resume {self.folder}'"
        if not self.begun:
            then = "the run had not begun, and left nothing: the same command starts it again"
        return Stopped(f"stopped; {then}", exit_code=128 + (self.stop.received or SIGTERM))

    def is_asked(self) -> bool:
        """Whether somebody asked it to stop."""
        return self.stop.received is not None or asked_to_stop(self.folder)

    @property
    def begun(self) -> bool:
        """Whether workers have made the run's directory, as far as it can be seen from here."""
        return self.config.run.mirror is not None or (self.folder / "config.yaml").exists()

    @property
    def may_leave(self) -> bool:
        """Whether it may be left as it is: nothing has begun, and the workers end with this process.

        A trial shares its cluster with others, which goes on.
        """
        return not self.begun and threading.current_thread() is threading.main_thread()

    def look(self) -> None:
        """Says what a start waits for, and takes it back from the driver's mark once it is over."""
        self.starting.look()
        if self.noted.is_set() and self.starting.over and self.places.since is None:
            self.noted.clear()
            note(self.mark, "")
