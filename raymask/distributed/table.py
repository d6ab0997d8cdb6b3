"""The live table of a search: refreshed in a terminal, otherwise a line now and then."""

import shutil
import sys
import time
from collections.abc import Collection

from raymask.distributed.results import Record, Results
from raymask.short import short

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
        self.stopped: set[str] = set()  # trials that go on when the search does

    def say_once(self, text: str) -> None:
        """A line above the table, or below the last one, the first time."""
        if text not in self.said:
            self.said.add(text)
            self.height = 0  # the table is drawn again below it
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def end(self, *, asked: bool) -> None:
        """Draws it for the last time. asked: whether the search was asked to stop, so that no trial runs"""
        records = self.results.records.values()
        self.stopped = {record.id for record in records if asked and record.state == "running"}
        self.show(last=True)
        if self.stopped:
            names, go = ", ".join(sorted(self.stopped)), "go" if len(self.stopped) > 1 else "goes"
            self.say_once(f"{names} {go} on with 'raymask resume {self.results.folder}'")

    def show(self, *, last: bool = False) -> None:
        """Draws the table again, if it is time."""
        alive = sys.stdout.isatty()
        if not last and time.monotonic() - self.shown < (1.0 if alive else _INTERVAL):
            return
        self.shown = time.monotonic()
        lines = [self.headline(), *(self._rows() if alive or last else ())]
        if alive and self.height:
            sys.stdout.write(
                f"\x1b[{self.height}A\x1b[J"
            )  # up to where the table began, and clear from there
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        self.height = len(lines)

    def headline(self) -> str:
        """7/16 trials, 2 running, best 41.25 (t003), 3:12"""
        states = [_state(record, self.stopped) for record in self.results.records.values()]
        counts = {state: states.count(state) for state in ("running", "stopped", "failed")}
        ended = len(states) - counts["running"] - len(self.stopped)
        best = self.results.best()
        parts = [
            f"{ended}/{self.total} trials",
            *(f"{many} {state}" for state, many in counts.items() if many),
        ]
        if best is not None:
            parts.append(f"best {best.curve[-1][1]:.4g} ({best.id})")
        seconds = int(time.monotonic() - self.start)
        return ", ".join([*parts, f"{seconds // 60}:{seconds % 60:02d}"])

    def _rows(self) -> list[str]:
        return rows(self.results, width=_width(), stopped=self.stopped)


def rows(results: Results, *, width: int, stopped: Collection[str] = ()) -> list[str]:
    """The best trials and those that run, in six columns. stopped: those that ran until the search ended"""
    sign = 1 if results.about["mode"] == "max" else -1

    def order(record: Record) -> tuple:
        return (not record.curve, -sign * record.curve[-1][1] if record.curve else 0.0)

    ranked = sorted(results.records.values(), key=order)
    running = [record for record in ranked if record.state == "running"]
    chosen = ranked[: max(1, _ROWS - len(running))]
    chosen += [record for record in running if record not in chosen][:_ROWS]
    name = results.about["metric"].removeprefix("eval/")
    cells: list[tuple[str, ...]] = [("trial", "state", "images", name, "seconds", "settings")]
    cells += [_cells(record, stopped) for record in chosen]
    widths = [max(len(row[column]) for row in cells) for column in range(5)]
    lines = (
        "  ".join([row[0].ljust(widths[0]), row[1].ljust(widths[1])])
        + "".join(f"  {row[column].rjust(widths[column])}" for column in (2, 3, 4))
        + f"  {row[5]}"
        for row in cells
    )
    return [line if len(line) <= width else line[: width - 3] + "..." for line in lines]


def _state(record: Record, stopped: Collection[str]) -> str:
    return "stopped" if record.id in stopped else record.state


def _cells(record: Record, stopped: Collection[str]) -> tuple[str, ...]:
    score = f"{record.curve[-1][1]:.4g}" if record.curve else "-"
    settings = "  ".join(f"{path}={short(value)}" for path, value in record.values.items())
    state, seconds = _state(record, stopped), f"{record.seconds:.0f}"
    return record.id, state, f"{record.images:,}", score, seconds, settings


def _width() -> int:
    return shutil.get_terminal_size((110, 24)).columns
