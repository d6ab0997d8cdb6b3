"""The first use of the loader on a machine: compiled once, said, and with no garbage collected meanwhile."""

import gc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from numba import njit
from numba.core import event
from PIL import Image

from pipelines.first_use import SENTENCE, FirstUse

# Passes over a folder; says how many functions were compiled.
PASS = """
import sys
from numba.core import event
from pipelines.data import Data
from pipelines.loader import Loader
from pipelines.source import open_source

compiled = event.RecordingListener()
with event.install_listener("numba:compile", compiled):
    with Loader(Data(threads=1, augment="cpu"), open_source(sys.argv[1]), batch=2, seed=0, steps=1) as loader:
        list(loader)
print(sum(heard.is_start for _, heard in compiled.buffer))
"""
MOST = 80  # functions and sets of types, numba's own among them; each takes a twentieth of a second or more


@contextmanager
def heard_by(*listeners: event.Listener) -> Iterator[None]:
    for listener in listeners:
        event.register("numba:compile", listener)
    try:
        yield
    finally:
        for listener in listeners:
            event.unregister("numba:compile", listener)


class Collecting(event.Listener):
    """Whether garbage is collected while functions are compiled."""

    def __init__(self) -> None:
        self.found: list[bool] = []

    def on_start(self, event: event.Event) -> None:
        self.found.append(gc.isenabled())

    def on_end(self, event: event.Event) -> None:
        pass


def test_garbage_waits_while_an_entry_point_is_compiled_and_no_longer():
    entry, other, look = njit(lambda x: x + 1), njit(lambda x: x + 2), Collecting()
    with heard_by(FirstUse([entry], slow=[]), look):
        assert (entry(1), other(1)) == (2, 3)
    assert look.found == [False, True] and gc.isenabled()


def test_garbage_that_was_not_collected_before_is_not_collected_after():
    entry = njit(lambda x: x + 1)
    gc.disable()
    try:
        with heard_by(FirstUse([entry], slow=[])):
            entry(1)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_takes_long_is_said_once(capsys):
    quick, slow, later = (njit(lambda x: x + 1) for _ in range(3))
    with heard_by(FirstUse([quick, slow, later], slow=[slow, later])):
        quick(1)
        assert capsys.readouterr().err == ""
        slow(1)
        later(1)
        slow(2)
    assert capsys.readouterr().err == f"{SENTENCE}\n"


@pytest.mark.slow
def test_a_second_process_compiles_nothing_and_says_nothing(tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        pixels = np.full((40, 50, 3), 60 * number, np.uint8)
        Image.fromarray(pixels).save(photos / f"{number}.jpg")
    command = [sys.executable, "-c", PASS, str(photos)]
    env = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "compiled")}
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True, env=env) for _ in range(2)
    )
    assert SENTENCE in first.stderr and 10 < int(first.stdout) <= MOST
    assert SENTENCE not in second.stderr and int(second.stdout) == 0
