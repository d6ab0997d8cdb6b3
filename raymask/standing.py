"""Where a run or a search stands, told from its directory alone: if it runs, how far it is, what comes next.

Nothing heavy is imported, so that asking costs nothing.
"""

import json
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from tqdm import tqdm

from pipelines.lock import is_locked
from pipelines.names import printable
from raymask import checkpoint
from raymask.driver import is_driven, waits_for
from raymask.headline import headline
from raymask.run import LOCK
from raymask.short import short
from raymask.signals import asked_to_stop


@dataclass(frozen=True)
class Standing:
    """What the last lines of metrics.jsonl say.

    steps: of the whole run; images: seen until the last line, and of the whole run
    left: seconds, at the pace of the last line; age: seconds since that line
    """

    step: int
    steps: int
    images: tuple[int, int]
    images_per_s: float | None
    left: float | None
    age: float
    loss: float | None = None

    def line(self, *, runs: bool) -> str:
        """For a terminal; its pace is of interest as long as it runs."""
        pace = f"  {self.images_per_s:,.0f} images/s" if runs and self.images_per_s else ""
        left = f"  left {tqdm.format_interval(self.left)}" if runs and self.left else ""
        loss = f"  loss {self.loss:.4g}" if self.loss is not None else ""
        seen, images = self.images
        age = f"  (written {tqdm.format_interval(self.age)} ago)"
        return f"step {self.step:,} of {self.steps:,}, {seen:,} of {images:,} images{loss}{pace}{left}{age}"


def standing(folder: Path) -> Standing | None:
    """Where the run in `folder` stands; None where it has written no line of training yet."""
    path = folder / "metrics.jsonl"
    last = next((line for line in reversed(_lines(path)) if "progress" in line), None)
    if last is None:
        return None
    steps = round(last["step"] / last["progress"])
    seen, batch = last["images"], last["images"] / last["step"]
    pace = last.get("images_per_s")
    return Standing(
        step=last["step"],
        steps=steps,
        images=(seen, round(batch * steps)),
        images_per_s=pace,
        left=batch * (steps - last["step"]) / pace if pace else None,
        age=max(0.0, time.time() - path.stat().st_mtime),
        loss=last.get("loss"),
    )


def evaluated(folder: Path) -> str | None:
    """What the last evaluation of a run found, in a line; None before the first one."""
    for line in reversed(_lines(folder / "metrics.jsonl")):
        found = {name: value for name, value in line.items() if name.startswith("eval/")}
        if found:
            return f"evaluated at step {line['step']:,}: {headline(found)}"
    return None


State = Literal["starting", "running", "stopping", "stopped", "finished"]
ACTIVE: tuple[State, ...] = ("starting", "running", "stopping")  # somebody is at it


def state_of(folder: Path) -> State:
    """Whether somebody trains or searches in `folder`, and if not, whether anything is left to do."""
    works = is_locked(folder / LOCK)
    if works or is_driven(folder):
        if asked_to_stop(folder):
            return "stopping"
        return "running" if works or waits_for(folder) is None else "starting"
    if (folder / "search.yaml").exists():
        return "finished" if (folder / "best.yaml").exists() else "stopped"
    found = standing(folder)
    return "finished" if found is not None and saved_step(folder) >= found.steps else "stopped"


def saved_step(folder: Path) -> int:
    """The step of the latest complete checkpoint of a run, or 0."""
    found = checkpoint.latest(folder / "checkpoints")
    return int(found.name.removeprefix("step_")) if found is not None else 0


def finished(folder: Path) -> str:
    """What can be done with a run or a search in which nothing is left to do."""
    if (folder / "search.yaml").exists():
        return (
            f"{folder} is finished: see 'raymask report {folder}', or 'raymask train {folder / 'best.yaml'}'"
        )
    return (
        f"{folder} is finished: see 'raymask evaluate {folder}' and 'raymask export {folder}'; a longer "
        f"training is a new run, 'raymask train {folder / 'config.yaml'} run.name=NAME train.epochs=N'"
    )


def described(folder: Path, state: State) -> list[str]:
    """A run or a search, for a terminal: its state, where it stands, and what can be done next."""
    search = (folder / "search.yaml").exists()
    said = [state, *(_of_search if search else _of_run)(folder, runs=state in ACTIVE)]
    waits = waits_for(folder) if state == "starting" else None
    if waits is not None:
        said.insert(1, f"{waits[0]}  (said {tqdm.format_interval(waits[1])} ago)")
    if state in ("starting", "running"):
        return [*said, f"next: raymask stop {folder}"]
    if state == "stopping":
        return [*said, "it was asked to stop, and writes a checkpoint first"]
    if state == "stopped":
        return [*said, f"next: raymask resume {folder}"]
    best = [f"raymask train {folder / 'best.yaml'}"] if search else [f"raymask evaluate {folder}"]
    return [*said, "next: " + ", ".join([f"raymask report {folder}", *best])]


def _of_run(folder: Path, *, runs: bool) -> list[str]:
    found, saved = standing(folder), saved_step(folder)
    if found is not None:
        said = [found.line(runs=runs)]
    else:
        said = ["the first line of training is not written yet" if runs else "nothing was trained yet"]
    said += [measured] if (measured := evaluated(folder)) else []
    if runs or (found is not None and saved == found.step):
        return said
    return [*said, f"its last checkpoint is of step {saved:,}" if saved else "it has no checkpoint yet"]


def _of_search(folder: Path, *, runs: bool) -> list[str]:
    """Its trials and the best of them, and where those are that have not ended."""
    path, asked = folder / "results.json", yaml.safe_load((folder / "search.yaml").read_text())["search"]
    trials = json.loads(path.read_text())["trials"] if path.exists() else []
    names = {"running": "running" if runs else "to go on with"}
    counts = Counter(names.get(trial["state"], trial["state"]) for trial in trials)
    shares = ", ".join(f"{many} {state}" for state, many in counts.items())
    said = [f"{len(trials)} of {asked['trials']} trials begun" + (f": {shares}" if shares else "")]
    said += _best(json.loads(path.read_text())) if trials else []
    for trial in trials:
        found = standing(folder / trial["folder"]) if trial["state"] == "running" else None
        if found is not None:
            said.append(f"{trial['id']}: {found.line(runs=runs)}")
    return said


def _best(results: dict) -> list[str]:
    for trial in results["trials"]:
        if trial["id"] == results["best"] and trial["curve"]:
            values = "  ".join(f"{printable(name)} {short(value)}" for name, value in trial["params"].items())
            return [f"best: {trial['id']}  {results['metric']} {trial['curve'][-1][1]:.4g}  {values}"]
    return []


def _lines(path: Path) -> list[dict]:
    """The whole lines of metrics.jsonl (raymask.metrics reads them as well, and imports torch)."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
