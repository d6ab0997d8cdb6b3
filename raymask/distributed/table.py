"""The live table of a search: refreshed in a terminal, otherwise a line now and then."""

import shutil
import sys
import time
from collections.abc import Mapping
from typing import Any

from raymask.distributed.results import Record, Results

_ROWS = 12
_INTERVAL = 30.0  # seconds between two lines where nobody looks


class Table:
    """What is shown while a search runs. total: trials in all"""

    def __init__(self, results: Results, *, total: int) -> None:
        self.results = results
        self.total = total
        self.start = self.shown = time.monotonic()
        self.height = 0
        self.said: set[str] = set()

    def say_once(self, text: str) -> None:
        """A line above the table, the first time."""
        if text not in self.said:
            self.said.add(text)
            self.height = 0  # the table is drawn again below it
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def show(self, *, last: bool = False) -> None:
        """Draws the table again, if it is time."""
        alive = sys.stdout.isatty()
        if not last and time.monotonic() - self.shown < (1.0 if alive else _INTERVAL):
            return
        self.shown = time.monotonic()
        lines = [self.headline(), *(rows(self.results, width=_width()) if alive or last else ())]
        if alive and self.height:
            sys.stdout.write(
                f"\x1b[{self.height}A\x1b[J"
            )  # up to where the table began, and clear from there
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        self.height = len(lines)

    def headline(self) -> str:
        """7/16 trials, 2 running, best 41.25 (t003), 3:12"""
        states = [record.state for record in self.results.records.values()]
        counts = {state: states.count(state) for state in ("running", "stopped", "failed")}
        ended = len(states) - counts["running"]
        best = self.results.best()
        parts = [
            f"{ended}/{self.total} trials",
            *(f"{many} {state}" for state, many in counts.items() if many),
        ]
        if best is not None:
            parts.append(f"best {best.curve[-1][1]:.4g} ({best.id})")
        seconds = int(time.monotonic() - self.start)
        return ", ".join([*parts, f"{seconds // 60}:{seconds % 60:02d}"])


def rows(results: Results, *, width: int) -> list[str]:
    """The best trials and those that run, in six columns."""
    sign = 1 if results.about["mode"] == "max" else -1

    def order(record: Record) -> tuple:
        return (not record.curve, -sign * record.curve[-1][1] if record.curve else 0.0)

    ranked = sorted(results.records.values(), key=order)
    running = [record for record in ranked if record.state == "running"]
    chosen = ranked[: max(1, _ROWS - len(running))]
    chosen += [record for record in running if record not in chosen][:_ROWS]
    name = results.about["metric"].removeprefix("eval/")
    cells: list[tuple[str, ...]] = [("trial", "state", "images", name, "seconds", "settings")]
    cells += [_cells(record) for record in chosen]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1])])
        + "".join(f"  {row[column].rjust(widths[column])}" for column in (2, 3, 4))
        + f"  {row[5]}"
        for row in cells
    )
    return [line if len(line) <= width else line[: width - 3] + "..." for line in lines]


def _cells(record: Record) -> tuple[str, ...]:
    score = f"{record.curve[-1][1]:.4g}" if record.curve else "-"
    settings = "  ".join(f"{path}={short(value)}" for path, value in record.values.items())
    return record.id, record.state, f"{record.images:,}", score, f"{record.seconds:.0f}", settings


def short(value: Any) -> str:
    """A value in few characters: numbers to three digits, schedules by their kind and numbers."""
    if isinstance(value, bool | str | None):
        return str(value).lower() if isinstance(value, bool) else str(value)
    if isinstance(value, int | float):
        return f"{value:.3g}" if isinstance(value, float) else str(value)
    if isinstance(value, Mapping):
        below = " ".join(short(below) for key, below in value.items() if key != "kind")
        return f"{value.get('kind', '')}({below})"
    return " ".join(short(below) for below in value)


def _width() -> int:
    return shutil.get_terminal_size((110, 24)).columns
