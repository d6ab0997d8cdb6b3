"""Processes that prepare images, because Pillow holds the GIL while it decodes and encodes.

A hand is `python -m pipelines.hands SETTINGS`: it reads images from its input and writes what is to be stored
to its output, each with its length in front. Nothing is pickled; it ends with its input, so also when whoever
started it is killed. One that a damaged image brings down costs that image, and is replaced.
"""

import fcntl
import json
import os
import struct
import subprocess
import sys
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO

from pipelines.decode import BadSample
from pipelines.prepare import prepare, readable

LENGTH = struct.Struct("<Q")
GOOD, SAME, BAD = b"+", b"=", b"-"
PIPE_BYTES = 1 << 20  # so that most images go through at once


@dataclass(frozen=True)
class How:
    """The arguments of `prepare`; `store` is false where images are decoded to see whether they can be."""

    max_side: int | None
    max_pixels: int
    baseline: bool
    store: bool = True


class OwnHand:
    """Prepares in the thread that asks: for data so few that processes would not have started yet."""

    def __init__(self, how: How) -> None:
        self._how = how

    def prepare(self, data: bytes) -> tuple[bytes, str]:
        """As `pipelines.prepare.prepare`."""
        return _prepared(data, self._how)

    def close(self) -> None:
        """Nothing is open."""


class Hand:
    """A process that prepares one image after the other, for one thread at a time."""

    def __init__(self, how: How) -> None:
        self._how = how
        self._process: subprocess.Popen[bytes] | None = None

    def prepare(self, data: bytes) -> tuple[bytes, str]:
        """As `pipelines.prepare.prepare`. Raises BadSample, also where the image kills the process.

        Raises RuntimeError where the process fails by itself, after it has said why on standard error.
        """
        process = self._process or self._start()
        assert process.stdin is not None and process.stdout is not None
        try:
            _send(process.stdin, data)
            process.stdin.flush()
            state, said, stored = process.stdout.read(1), _receive(process.stdout), _receive(process.stdout)
        except (EOFError, BrokenPipeError):
            status = process.wait()
            self.close()
            if status >= 0:  # no signal: it did not start, or has a mistake
                raise RuntimeError(f"a process that prepares images ended with status {status}") from None
            raise BadSample("broken image") from None
        if state == BAD:
            raise BadSample(said.decode())  # type: ignore[arg-type]  # a cause by its name
        return (data if state == SAME else stored), said.decode()

    def close(self) -> None:
        """Ends the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "pipelines.hands", json.dumps(asdict(self._how))]
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            start_new_session=True,  # Ctrl-C is for whoever started it
        )
        assert process.stdin is not None and process.stdout is not None
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, AttributeError):  # more than this user may have, or not Linux
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._process = process
        return process


def _prepared(data: bytes, how: How) -> tuple[bytes, str]:
    if not how.store:
        readable(data, how.max_pixels)
        return b"", ""
    return prepare(data, max_side=how.max_side, max_pixels=how.max_pixels, baseline=how.baseline)


def _send(file: IO[bytes], data: bytes) -> None:
    """Writes bytes with their length in front."""
    file.write(LENGTH.pack(len(data)))
    file.write(data)


def _receive(file: IO[bytes]) -> bytes:
    """Reads what `_send` wrote. Raises EOFError at the end."""
    head = file.read(LENGTH.size)
    if len(head) < LENGTH.size:
        raise EOFError
    (size,) = LENGTH.unpack(head)
    data = file.read(size)
    if len(data) < size:
        raise EOFError
    return data


def main(settings: str) -> None:
    """Serves until the input ends."""
    warnings.filterwarnings("ignore", module=r"PIL\.")  # they name no file
    how = How(**json.loads(settings))
    given, answer = sys.stdin.buffer, sys.stdout.buffer
    while True:
        try:
            data = _receive(given)
        except EOFError:
            return
        try:
            stored, extension = _prepared(data, how)
            answer.write(SAME if stored is data else GOOD)
            _send(answer, extension.encode())
            _send(answer, b"" if stored is data else stored)
        except BadSample as error:
            answer.write(BAD)
            _send(answer, error.cause.encode())
            _send(answer, b"")
        answer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
