"""What a run says: a progress bar on a terminal, or a line an interval; all of it in train.log."""

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

# Shown in this order, where a line has them.
_SHOWN = ("loss", "teacher_entropy", "mask_ratio", "lr", "grad_norm", "images_per_s", "data_wait")


class Console:
    """Speaks for the first rank; the others are silent.

    log: train.log of the run, or None
    steps, start: length of the run and where it begins now, for the bar and the time that is left
    """

    def __init__(self, log: Path | None, *, steps: int, start: int, leads: bool = True) -> None:
        self.log = log if leads else None
        self.leads = leads
        self.steps = steps
        self.start = start
        self.begun = time.monotonic()
        self.bar: tqdm | None = None
        self._said: set[str] = set()
        if leads and sys.stderr.isatty():
            self.bar = tqdm(total=steps, initial=start, unit="step", dynamic_ncols=True, smoothing=0.05)

    def say(self, text: str) -> None:
        """A sentence, on the screen and in train.log."""
        if not self.leads:
            return
        tqdm.write(text, file=sys.stderr)
        if self.log is not None:
            with self.log.open("a") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def say_once(self, topic: str, text: str) -> None:
        """A sentence, the first time that there is one on this topic."""
        if topic not in self._said:
            self._said.add(topic)
            self.say(text)

    def advance(self, done: int) -> None:
        """Moves the bar to `done` steps."""
        if self.bar is not None:
            self.bar.update(done - self.bar.n)

    def show(self, line: Mapping[str, object], done: int) -> None:
        """One line of metrics: beside the bar, or as a line of its own with the time that is left."""
        shown = {name: line[name] for name in _SHOWN if isinstance(line.get(name), float | int)}
        text = "  ".join(f"{name} {value:.4g}" for name, value in shown.items())
        if self.bar is not None:
            self.bar.set_postfix_str(text)
        else:
            self.say(f"step {done}/{self.steps}  {text}  left {self._left(done)}")

    def close(self) -> None:
        """Ends the bar."""
        if self.bar is not None:
            self.bar.close()

    def _left(self, done: int) -> str:
        seconds = (time.monotonic() - self.begun) / max(1, done - self.start) * (self.steps - done)
        return tqdm.format_interval(seconds)


class Stopwatch:
    """Images and the seconds they took, without what is not training."""

    def __init__(self) -> None:
        self._images = 0
        self._begun = time.perf_counter()

    def add(self, images: int) -> None:
        """Counts images of a step that was just done."""
        self._images += images

    def take(self) -> tuple[int, float]:
        """Images and seconds since the last call."""
        now = time.perf_counter()
        taken = self._images, max(1e-9, now - self._begun)
        self._images, self._begun = 0, now
        return taken

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Time spent within it does not count."""
        before = time.perf_counter()
        yield
        self._begun += time.perf_counter() - before
