"""A run that is under way: put back to where its host left off, with all that it needs to go on."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from raymask import metrics, state
from raymask.bad import agree
from raymask.config import build, to_tree
from raymask.console import Console, Stopwatch
from raymask.context import RunContext
from raymask.device import describe, pins_memory
from raymask.feed import Feed, open_feed
from raymask.metrics import Running
from raymask.pace import Spans
from raymask.trackers import NOBODY, Trackers, open_trackers
from raymask.training import Training


@dataclass(frozen=True)
class Live:
    """A run that is under way.

    start: the step that it went on from; running, watch, spans: what was summed up since the last line
    """

    training: Training
    folder: Path
    context: RunContext
    console: Console
    loader: Feed
    running: Running
    watch: Stopwatch
    spans: Spans
    start: int
    trackers: Trackers

    def write(self, line: Mapping[str, object]) -> None:
        """A line of metrics.jsonl, on the first rank."""
        metrics.append(self.folder / "metrics.jsonl", line)


@contextmanager
def opened(training: Training, folder: Path, context: RunContext) -> Iterator[Live]:
    """The live parts of the run, from where its host left off; closed whatever happens."""
    running = Running(training.device)
    start, said = _restore(training, folder, context, running)
    plan, config, world = training.plan, training.config, training.world
    loader = open_feed(
        config,
        training.source,
        batch=plan.batch,
        world=world,
        start=start,
        steps=plan.steps,
        pin=pins_memory(training.device),
        bad_log=folder / "bad_samples.jsonl",
    )
    console = Console(folder / "train.log", steps=plan.steps, start=start, leads=world.leads)
    times = Stopwatch(), Spans(training.device)
    trackers = _trackers(training, folder, start, console)
    live = Live(training, folder, context, console, loader, running, *times, start, trackers)
    with closing(console), closing(trackers), closing(loader):
        for remark in (
            said,
            *_notes(training),
            training.remark,
            training.evaluation.missing,
            training.evaluation.remark,
            *training.method.remarks(),
        ):
            if remark is not None:
                console.say(remark)
        agree(loader.bad, world=world, device=training.device)
        yield live


def _notes(training: Training) -> Iterator[str]:
    """What was passed over in the data, of which their user should know."""
    yield from training.source.notes.sentences("data.train")
    if (queries := training.evaluation.queries) is not None:
        yield from queries.source.notes.sentences("data.val")


def _trackers(training: Training, folder: Path, start: int, console: Console) -> Trackers:
    """Who else follows the run; on the first rank."""
    config = training.config
    if not training.world.leads:
        return NOBODY
    return open_trackers(
        config.track,
        folder,
        name=config.run.name or folder.name,
        config=to_tree(config),
        begin=start + 1 if start else 0,
        say=console.say_once,
    )


def _restore(training: Training, folder: Path, context: RunContext, running: Running) -> tuple[int, str]:
    """Puts the host's latest checkpoint in place; returns its step (0 without one) and a sentence."""
    leads, plan, lines = training.world.leads, training.plan, folder / "metrics.jsonl"
    with context.latest() as found:
        if found is None:
            if leads:
                metrics.truncate(lines, -1)
            return 0, f"{folder}: {plan.steps} steps on {_place(training)}"
        saved = state.describe(found)
        _check_origin(found, saved, training)
        loaded = state.restore(found, method=training.method, optimiser=training.optimiser)
        running.restore(state.part(found, "running"), leads=leads)
        if leads:
            metrics.truncate(lines, saved["step"])
        left = "" if saved["step"] < plan.steps else ", where nothing is left to train,"
        step = f"step {saved['step']} of {plan.steps}{left}"
        return saved["step"], f"{found}: {loaded}; continuing at {step} on {_place(training)}"


def _place(training: Training) -> str:
    """What it trains on: "CPU (AVX512, 1 threads) x 2"."""
    size = training.world.size
    return describe(training.device) + (f" x {size}" if size > 1 else "")


def _check_origin(found: Path, saved: dict, training: Training) -> None:
    """Raises ValueError for a checkpoint of another config or of other data."""
    config, fingerprint = training.config, training.source.fingerprint
    state.refuse_another_config(to_tree(build(saved["config"])), to_tree(config), where=found)
    if saved["data"] != fingerprint:
        raise ValueError(
            f"{found} was trained on other data than data.train={config.data.train} (fingerprints "
            f"{saved['data']} and {fingerprint}): a run continues on the data it began with"
        )
