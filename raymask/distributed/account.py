"""What a trial of a search has to account for, and the pointers to its run by which Tune knows it."""

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path

from raymask import checkpoint, metrics, state
from raymask.distributed.lineage import History
from raymask.distributed.space import Values
from raymask.run import write_json
from raymask.standing import saved_step

POINTER = "pointer.json"
NOTE = "trial.json"  # the last pointer, in the run directory, for when Tune is gone


@dataclass(frozen=True)
class Pointer:
    """What Tune keeps as the checkpoint of a trial.

    trial: its name; step: of its checkpoint; turn: how often its run had been replaced by another's
    history: the settings that a population changed on the way; seconds: of the device, until then
    """

    trial: str
    step: int
    turn: int = 0
    history: History = field(default_factory=list)
    seconds: float = 0.0


def read_pointer(folder: Path) -> Pointer:
    """The pointer in a folder."""
    return Pointer(**json.loads((folder / POINTER).read_text()))


def note(folder: Path, pointer: Pointer) -> None:
    """Notes in a run directory what Tune is told of it, for when Tune is gone."""
    write_json(folder / NOTE, asdict(pointer))


def noted(folder: Path) -> Pointer | None:
    """What was noted in a run directory, as of its latest checkpoint; None where nothing was yet."""
    found = checkpoint.latest(folder / "checkpoints")
    if found is None or not (folder / NOTE).exists():
        return None
    entries = json.loads((folder / NOTE).read_text())
    # The note is written after its checkpoint: a kill between them leaves it one behind.
    return replace(Pointer(**entries), step=state.describe(found)["step"])


def evaluations(folder: Path, *, after: int) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, what was measured) of each evaluation of a run after a step, as far as its checkpoints go."""
    saved = saved_step(folder)
    if saved <= after:
        return
    found: dict[int, dict[str, float]] = {}
    for line in metrics.read(folder / "metrics.jsonl"):
        found[line["step"]] = found.get(line["step"], {}) | told(line)
    for step in sorted(step for step in found if after < step <= saved):
        if any(name.startswith("eval/") for name in found[step]):
            yield step, found[step]


def told(line: Mapping[str, float]) -> dict[str, float]:
    """What of a line of metrics.jsonl a search hears: evaluations, and the loss."""
    wanted = {name: value for name, value in line.items() if name == "loss" or name.startswith("eval/")}
    return {name: value for name, value in wanted.items() if value is not None and isfinite(value)}


@dataclass(frozen=True)
class Account:
    """What a trial has to account for.

    metric: what is optimised; values, history, turn: as of the current start
    seconds: of the device, before this start; batch: images of a step
    costs: what is counted beside seconds, until a step
    heard: the step until which the search knows what was measured
    """

    trial: str
    metric: str
    values: Values
    history: History
    seconds: float
    batch: int
    costs: Callable[[int], dict[str, float]]
    turn: int
    heard: int

    def tell(self, folder: Path, measured: Mapping[str, float], *, step: int, seconds: float) -> None:
        """Notes in the run directory, and tells Tune, which may end the trial here, what was measured.

        folder: of the run, with a complete checkpoint of this step or later; seconds: since this start
        Raises ValueError if the metric was not among what was measured.
        """
        from ray import tune

        if self.metric not in measured:
            raise ValueError(
                f"{self.metric} was not measured, or is not finite; there is {', '.join(measured)}"
            )
        pointer = self.rest(folder, seconds=seconds)
        assert pointer.step >= step, "its checkpoint was just written"
        result = {
            "metric": float(measured[self.metric]),
            "images": step * self.batch,
            "step": step,
            "seconds": pointer.seconds,
            "measured": dict(measured),
            "costs": self.costs(step),
            "values": self.values,
            "history": self.history,
        }
        with tempfile.TemporaryDirectory() as handed:
            write_json(Path(handed) / POINTER, asdict(pointer))
            tune.report(result, checkpoint=tune.Checkpoint.from_directory(handed))

    def rest(self, folder: Path, *, seconds: float) -> Pointer:
        """Notes in the run directory from where, and after which time, the trial goes on; gives that."""
        pointer = Pointer(self.trial, saved_step(folder), self.turn, self.history, self.seconds + seconds)
        note(folder, pointer)
        return pointer

    def catch_up(self, folder: Path) -> None:
        """Tells what was measured before this start and never heard: a kill came between."""
        for step, measured in evaluations(folder, after=self.heard):
            self.tell(folder, measured, step=step, seconds=0.0)
