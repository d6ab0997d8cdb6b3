"""What an error means to whoever called `raymask`: a code for the shell, a sentence for each thing wrong."""

import os
import sys
import threading
from traceback import walk_tb
from typing import NoReturn

from pipelines.names import printable
from raymask.signals import Stopped

_OURS = ("raymask", "pipelines", "tune_spaces")


def leave(code: int) -> NoReturn:
    """Ends the process; at once where a thread still waits for Ray, which crashes on its way out."""
    if "raymask.distributed.launch" in sys.modules:
        from raymask.distributed.launch import WAITING

        if any(thread.name == WAITING for thread in threading.enumerate()):
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


def was_asked_to_stop(error: Exception) -> bool:
    """Whether a run ended in good order: no traceback tells more."""
    return isinstance(error, Stopped)


def explains_itself(error: Exception) -> bool:
    """Whether the sentence says it all: a run that was stopped, or what a user has to change.

    Other libraries raise ValueError, too; only one that was raised by us was written for a user.
    """
    if was_asked_to_stop(error):
        return True
    frames = list(walk_tb(error.__traceback__))
    ours = bool(frames) and frames[-1][0].f_globals.get("__name__", "").partition(".")[0] in _OURS
    return isinstance(error, ValueError) and ours


def exit_code(error: Exception) -> int | None:
    """What an error means to the shell; None for our own mistakes, whose traceback is wanted."""
    if isinstance(error, Stopped):
        return error.exit_code
    if isinstance(error, ValueError):
        return 2
    if isinstance(error, OSError | MemoryError) or _is_known_failure(error):
        return 1
    return None


def _is_known_failure(error: Exception) -> bool:
    """Whether a run failed for a reason that its message tells: no finite loss, or no memory."""
    return type(error).__name__ in ("Diverged", "OutOfMemoryError", "InductorError", "BackendCompilerFailed")


def sentence(error: Exception) -> str:
    """The error in one sentence for each thing that is wrong."""
    if type(error).__name__ == "OutOfMemoryError" or isinstance(error, MemoryError):
        return "raymask: out of memory: a smaller train.chunk computes the same step in smaller parts"
    if "Inductor" in type(error).__name__ or "Backend" in type(error).__name__:
        return "raymask: torch.compile failed on this machine (no C++ compiler?): set train.compile=false"
    if isinstance(error, OSError) and error.strerror:
        where = f": {error.filename}" if error.filename else ""
        return f"raymask: {error.strerror.lower()}{where}"
    # names of files and shards may hold anything
    return "\n".join(f"raymask: {printable(line)}" for line in str(error).splitlines())
