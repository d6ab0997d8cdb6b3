"""The first use of the entry points on a machine, when they are compiled: what is said, and what waits."""

import gc
import sys
from collections.abc import Callable, Collection

from numba.core.event import Event, Listener

SENTENCE = "compiling the loader for this machine, once: about 10 s of one core"


class FirstUse(Listener):
    """Hears of what numba compiles, which is nothing that the disk has.

    watched: entry points; while they are compiled, Python's garbage is not collected. The compiler makes so
        many objects that the collector would look through all that is loaded, torch with it, again and again:
        a fifth of the time
    slow: those of them that take seconds, of the first of which a sentence on stderr tells
    """

    def __init__(self, watched: Collection[Callable], *, slow: Collection[Callable]):
        self._watched, self._slow = watched, slow
        self._collects = self._said = False

    def on_start(self, event: Event) -> None:
        compiled = event.data["dispatcher"]
        if compiled in self._watched:
            self._collects = gc.isenabled()
            gc.disable()
        if compiled in self._slow and not self._said:
            self._said = True
            sys.stderr.write(f"{SENTENCE}\n")

    def on_end(self, event: Event) -> None:
        if event.data["dispatcher"] in self._watched and self._collects:
            gc.enable()
