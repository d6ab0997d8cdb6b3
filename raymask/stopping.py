"""Stopping who trains or searches in a directory of this machine, and waiting until they have."""

import time
from collections.abc import Callable
from pathlib import Path

from raymask.signals import ask_to_stop
from raymask.standing import ACTIVE, finished, saved_step, standing, state_of

GRACE = 300  # seconds that a run has for its last checkpoint
_EVERY = 10.0  # seconds between two lines

Say = Callable[[str], None]


def stop_here(folder: Path, *, say: Say, seconds: float = GRACE) -> None:
    """Has whoever trains or searches in `folder` save where it is and end, and waits for that.

    Raises ValueError where nobody does, and TimeoutError if it has not ended after so many seconds.
    """
    before = state_of(folder)
    if before == "finished":
        raise ValueError(finished(folder))
    if before == "stopped":
        raise ValueError(
            f"nobody trains in {folder}: there is nothing to stop; 'raymask resume {folder}' goes on with it"
        )
    ask_to_stop(folder)
    said = "end before it begins" if before == "starting" else "write a checkpoint and end"
    say(f"{folder} is asked to {said}")
    begun = spoken = time.monotonic()
    while (state := state_of(folder)) in ACTIVE:
        time.sleep(0.2)
        now = time.monotonic()
        if now - begun > seconds:
            raise TimeoutError(
                f"{folder} has not ended within {seconds:.0f} seconds (evaluating may take long); it is "
                f"still asked to: see 'raymask status {folder}'"
            )
        if now - spoken > _EVERY:
            spoken = now
            say(f"waiting for it to end, for {now - begun:.0f} s now{_reached(folder)}")
    say(_ended(folder, finished=state == "finished"))


def _reached(folder: Path) -> str:
    found = standing(folder)
    return f": step {found.step:,} of {found.steps:,}" if found is not None else ""


def _ended(folder: Path, *, finished: bool) -> str:
    if not folder.exists():
        return f"{folder} was stopped before it began, and left nothing: the same command starts it again"
    found, saved = standing(folder), saved_step(folder)
    of = f" of {found.steps:,}" if found is not None else ""
    at = f" at step {saved:,}{of}" if saved else ""
    if finished:
        return f"{folder} came to its end meanwhile{at}: see 'raymask report {folder}'"
    return f"{folder} has stopped{at}: go on with 'raymask resume {folder}'"
