"""Where a run or a search stands, told from its directory alone: steps, pace, what is left, evaluations."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from pipelines.names import printable


@dataclass(frozen=True)
class Standing:
    """What the last lines of metrics.jsonl say.

    steps: of the whole run; left: seconds, at the pace of the last line; age: seconds since that line
    evaluated: last value of each evaluation, without its eval/; evaluated_at: the step of the last one
    """

    step: int
    steps: int
    images_per_s: float | None
    left: float | None
    age: float
    loss: float | None = None
    evaluated: dict[str, float] = field(default_factory=dict)
    evaluated_at: int | None = None

    @property
    def lines(self) -> list[str]:
        """For a terminal."""
        pace = f"  {self.images_per_s:,.0f} images/s" if self.images_per_s else ""
        left = f"  left {tqdm.format_interval(self.left)}" if self.left else ""
        loss = f"  loss {self.loss:.4g}" if self.loss is not None else ""
        age = f"  (written {tqdm.format_interval(self.age)} ago)"
        said = [f"step {self.step:,} of {self.steps:,}{loss}{pace}{left}{age}"]
        if self.evaluated:
            values = "  ".join(f"{printable(name)} {value:.4f}" for name, value in self.evaluated.items())
            said.append(f"evaluated at step {self.evaluated_at:,}: {values}")
        return said


def standing(folder: Path) -> Standing | None:
    """Where the run in `folder` stands; None where it has written no line of metrics yet."""
    path = folder / "metrics.jsonl"
    last, evaluated, evaluated_at = None, {}, None
    for line in _lines(path):
        if "progress" in line:
            last = line
        found = {name[5:]: value for name, value in line.items() if name.startswith("eval/")}
        if found:
            evaluated, evaluated_at = {n: v for n, v in found.items() if v is not None}, line["step"]
    if last is None:
        return None
    steps = round(last["step"] / last["progress"])
    images = last["images"] / last["step"] * (steps - last["step"])
    pace = last.get("images_per_s")
    return Standing(
        step=last["step"],
        steps=steps,
        images_per_s=pace,
        left=images / pace if pace else None,
        age=max(0.0, time.time() - path.stat().st_mtime),
        loss=last.get("loss"),
        evaluated=evaluated,
        evaluated_at=evaluated_at,
    )


def of_search(folder: Path) -> list[str]:
    """Where the search in `folder` stands, for a terminal; nothing where it is none."""
    path = folder / "results.json"
    if not path.exists():
        return []
    results = json.loads(path.read_text())
    counts = Counter(trial["state"] for trial in results["trials"])
    said = [f"{sum(counts.values())} trials: " + ", ".join(f"{n} {state}" for state, n in counts.items())]
    for trial in results["trials"]:
        if trial["id"] == results["best"] and trial["curve"]:
            values = "  ".join(f"{printable(name)} {value}" for name, value in trial["params"].items())
            said.append(f"best: {trial['id']}  {results['metric']} {trial['curve'][-1][1]:.4g}  {values}")
    return said


def _lines(path: Path) -> list[dict]:
    """The whole lines of metrics.jsonl (raymask.metrics reads them as well, and imports torch)."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
