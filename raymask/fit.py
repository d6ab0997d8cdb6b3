"""Training, as a story: `fit` reads from the first step to the last, and its scenes follow in order.

It knows nothing of who started it: a plain process, torchrun, or a cluster, each behind a RunContext.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from math import log
from pathlib import Path

from torch import Tensor

from pipelines.batch import Batch
from raymask import metrics, run, state
from raymask.augment import finisher
from raymask.bad import agree
from raymask.config import build, to_tree
from raymask.console import Console, Stopwatch
from raymask.context import RunContext
from raymask.device import describe, moved, peak_memory, pins_memory
from raymask.evaluate import evaluate
from raymask.feed import Feed, open_feed
from raymask.metrics import Running
from raymask.pace import Spans, pace
from raymask.parallel import gathered
from raymask.report.verdict import judge
from raymask.step import train_step
from raymask.streams import Rng
from raymask.trackers import NOBODY, Trackers, open_trackers
from raymask.training import Training
from raymask.world import together

_UNWRITTEN = "the first process could not write what was measured, and says why"
_WATCH = 20  # lines of metrics.jsonl between two looks at the signs of collapse

Values = Mapping[str, Tensor | float]


class Diverged(RuntimeError):
    """The loss is not finite any more."""


def fit(training: Training, folder: Path, context: RunContext) -> bool:
    """Trains from the host's latest checkpoint, whoever that is; whether it came to the end of the run."""
    plan, config = training.plan, training.config
    with _opened(training, folder, context) as live:
        for batch in moved(live.loader, training.device, finisher(config, training.dtype), live.spans):
            values = train_step(
                training.parallel,
                batch,
                plan.progress(batch.step),
                Rng(config.run.seed, batch.step),
                optimiser=training.optimiser,
                optim=config.optim,
                chunk=config.train.chunk,
                dtype=training.dtype,
            )
            _count(live, batch, values)
            done = batch.step + 1
            if plan.logs_after(done):
                _log(live, done, values)
            if plan.evaluates_after(done):
                _evaluate(live, done)
            if plan.saves_after(done):
                _save(live, done)
            asked = context.asked() if _may_ask(live, done) else None
            if asked is not None and not plan.saves_after(done):
                _save(live, done)
            if asked is not None:
                context.finish()
            if asked == "stop":
                return done == plan.steps
        return _finish(live)


@dataclass(frozen=True)
class _Live:
    """A run that is under way."""

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

    @property
    def lines(self) -> Path:
        return self.folder / "metrics.jsonl"


@contextmanager
def _opened(training: Training, folder: Path, context: RunContext) -> Iterator[_Live]:
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
    live = _Live(training, folder, context, console, loader, running, *times, start, trackers)
    with closing(console), closing(trackers), closing(loader):
        for remark in (
            said,
            training.remark,
            training.evaluation.missing,
            training.evaluation.remark,
            *training.method.remarks(),
        ):
            if remark is not None:
                console.say(remark)
        agree(loader.bad, world=world, device=training.device)
        if start == 0 and plan.evaluates_after(0):
            _evaluate(live, 0)
        yield live


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
        return saved["step"], (
            f"{found}: {loaded}; continuing at step {saved['step']} of {plan.steps} on {_place(training)}"
        )


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


def _count(live: _Live, batch: Batch, values: Values) -> None:
    live.running.add(values, batch)
    live.watch.add(batch.rows)
    live.console.advance(batch.step + 1)


def _log(live: _Live, done: int, values: Values) -> None:
    """Writes a line of metrics.jsonl: means over the steps since the last one."""
    _refuse_nan(live)
    agree(live.loader.bad, world=live.training.world, device=live.training.device)
    plan, (means, signatures) = live.training.plan, live.running.take()
    images, seconds = live.watch.take()
    timings = live.loader.take_timings() | live.spans.take()
    last = plan.progress(done - 1)
    line = {"step": done, "images": done * plan.batch, "epoch": last.epoch, "progress": done / plan.steps}
    line |= means | {name: value for name, value in values.items() if not isinstance(value, Tensor)}
    line |= pace(images, seconds, timings)
    if live.training.world.leads:
        metrics.append(live.lines, {**line, **signatures})
        live.trackers.log(done, line)
        if done % (_WATCH * plan.log) == 0:
            _warn(live)
    live.console.show(line, done)
    if timings["bad"]:
        live.console.say_once("bad", "unreadable images are replaced by others; bad_samples.jsonl names them")
    live.context.report(line, step=done)


def _evaluate(live: _Live, done: int) -> None:
    """Measures the backbone on the held-out split, all ranks together."""
    _refuse_nan(live)
    training, final = live.training, done == live.training.plan.steps
    own, config = getattr(training.method, training.config.evaluate.network).backbone, training.config
    with live.watch.paused():
        backbone = gathered(own, lambda: config.backbone.build(seed=config.run.seed))
        results = evaluate(
            backbone, training.evaluation, world=training.world, final=final, dtype=training.dtype
        )
        with together(device=training.device, otherwise=_UNWRITTEN):
            if training.world.leads:
                _write(live, done, results)
        live.context.report(results, step=done)


def _write(live: _Live, done: int, results: dict[str, float]) -> None:
    """What was measured: a line, a file, a sentence, and a warning where it looks like a collapse."""
    metrics.append(live.lines, {"step": done, "images": done * live.training.plan.batch, **results})
    live.trackers.log(done, results)
    (live.folder / "eval").mkdir(exist_ok=True)
    run.write_json(live.folder / "eval" / f"step_{done:08d}.json", {"step": done, **results})
    live.console.say(f"step {done}: " + "  ".join(f"{k} {v:.4g}" for k, v in results.items()))
    _warn(live)


def _warn(live: _Live) -> None:
    """Says, once, if what was measured so far points to a collapse."""
    prototypes = getattr(getattr(live.training.config.method, "head", None), "out_dim", None)
    lines = list(metrics.read(live.lines))
    verdict = judge(
        [line for line in lines if "loss" in line],
        [line for line in lines if "loss" not in line],
        uniform=log(prototypes) if prototypes else None,
    )
    if verdict.state == "bad":
        live.console.say_once("collapse", f"warning: {verdict.text}")


def _save(live: _Live, done: int) -> None:
    """A checkpoint after `done` steps; all lines up to there are written before it."""
    _refuse_nan(live)
    training, running = live.training, live.running.tensors()
    described = {
        "step": done,
        "images": done * training.plan.batch,
        "seed": training.config.run.seed,
        "data": training.source.fingerprint,
        "config": to_tree(training.config),
        "versions": run.versions(),
    }

    with live.watch.paused():
        snapshot = state.snapshot(
            method=training.method, optimiser=training.optimiser, running=running, state=described
        )
        live.context.report({}, step=done, save=snapshot)


def _refuse_nan(live: _Live) -> None:
    """Ends a run whose loss or gradient is not finite; its last good checkpoint stays."""
    step = live.running.broken_at()
    if step is not None:
        with live.context.latest() as good:
            where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        raise Diverged(
            f"the loss or its gradient is not finite any more since step {step}; {where}. A lower "
            "optim.base_lr or optim.clip, or train.precision=float32 may help, in a new run"
        )


def _may_ask(live: _Live, done: int) -> bool:
    """Asking the host waits for all ranks where there are several: only so often."""
    return live.training.world.size == 1 or live.training.plan.logs_after(done)


def _finish(live: _Live) -> bool:
    live.context.finish()
    plan, memory = live.training.plan, peak_memory(live.training.device) / 2**30
    live.console.say(
        f"done: {plan.steps} steps, {plan.steps * plan.batch} images, at most {memory:.1f} GiB of memory"
    )
    return True
