"""Training, as a story: `fit` reads from the first step to the last, and its scenes follow in order.

It knows nothing of who started it: a plain process, torchrun, or a cluster, each behind a RunContext.
"""

from collections.abc import Mapping
from math import log
from pathlib import Path
from typing import Any

from torch import Tensor

from pipelines.batch import Batch
from raymask import metrics, run, state
from raymask.augment import finisher
from raymask.backbone import VisionBackbone
from raymask.bad import agree
from raymask.classifier import Classifier, classifier, classifier_of
from raymask.config import to_tree
from raymask.context import RunContext
from raymask.device import moved, peak_memory
from raymask.evaluate import evaluate
from raymask.headline import headline
from raymask.live import Live, opened
from raymask.pace import pace
from raymask.parallel import gathered
from raymask.report.verdict import judge
from raymask.step import train_step
from raymask.streams import Rng
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
    with opened(training, folder, context) as live:
        if live.start == 0 and plan.evaluates_after(0):
            _evaluate(live, 0)
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


def _count(live: Live, batch: Batch, values: Values) -> None:
    live.running.add(values, batch)
    live.watch.add(batch.rows)
    live.console.advance(batch.step + 1)


def _log(live: Live, done: int, values: Values) -> None:
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
        live.write({**line, **signatures})
        live.trackers.log(done, line)
        if done % (_WATCH * plan.log) == 0:
            _warn(live)
    live.console.show(line, done)
    if timings["bad"]:
        live.console.say_once("bad", "unreadable images are replaced by others; bad_samples.jsonl names them")
    live.context.report(line, step=done)


def _evaluate(live: Live, done: int) -> None:
    """Measures the backbone on the held-out split, all ranks together."""
    _refuse_nan(live)
    training, final = live.training, done == live.training.plan.steps
    with live.watch.paused():
        backbone, own = _whole(training)
        results = evaluate(
            backbone,
            training.evaluation,
            world=training.world,
            final=final,
            dtype=training.dtype,
            classifier=own,
        )
        with together(device=training.device, otherwise=_UNWRITTEN):
            if training.world.leads:
                _write(live, done, results)
        live.context.report(results, step=done)


def _whole(training: Training) -> tuple[VisionBackbone, Classifier | None]:
    """The evaluated backbone, and the classifier on it where the method trains one. A collective."""
    config = training.config
    network: Any = getattr(training.method, config.evaluate.network)
    seed, own, head = config.run.seed, network.backbone, classifier_of(network)
    masked = own.mask_token is not None
    backbone = gathered(own, lambda: config.backbone.build(seed=seed, mask_token=masked))
    if head is None:
        return backbone, None
    return backbone, gathered(head, lambda: classifier(backbone, head.classes, seed=seed))


def _write(live: Live, done: int, results: dict[str, float]) -> None:
    """What was measured: a line, a file, a sentence, and a warning where it looks like a collapse."""
    live.write({"step": done, "images": done * live.training.plan.batch, **results})
    live.trackers.log(done, results)
    (live.folder / "eval").mkdir(exist_ok=True)
    run.write_json(live.folder / "eval" / f"step_{done:08d}.json", {"step": done, **results})
    live.console.say(f"step {done} evaluated: {headline(results)}")
    _warn(live)


def _warn(live: Live) -> None:
    """Says, once, if what was measured so far points to a collapse."""
    prototypes = getattr(getattr(live.training.config.method, "head", None), "out_dim", None)
    lines = list(metrics.read(live.folder / "metrics.jsonl"))
    verdict = judge(
        [line for line in lines if "loss" in line],
        [line for line in lines if "loss" not in line],
        uniform=log(prototypes) if prototypes else None,
    )
    if verdict.state == "bad":
        live.console.say_once("collapse", f"warning: {verdict.text}")


def _save(live: Live, done: int) -> None:
    """A checkpoint after `done` steps; all lines up to there are written before it."""
    _refuse_nan(live)
    training, running = live.training, live.running.tensors()
    described = {
        "step": done,
        "images": done * training.plan.batch,
        "seed": training.config.run.seed,
        "data": training.source.fingerprint,
        "classes": list(training.source.classes) if classifier_of(training.method.student) else [],
        "config": to_tree(training.config),
        "versions": run.versions(),
    }

    with live.watch.paused():
        snapshot = state.snapshot(
            method=training.method, optimiser=training.optimiser, running=running, state=described
        )
        live.context.report({}, step=done, save=snapshot)


def _refuse_nan(live: Live) -> None:
    """Ends a run whose loss or gradient is not finite; its last good checkpoint stays."""
    step = live.running.broken_at()
    if step is not None:
        with live.context.latest() as good:
            where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        raise Diverged(
            f"the loss or its gradient is not finite any more since step {step}; {where}. A lower "
            "optim.base_lr or optim.clip, or train.precision=float32 may help, in a new run"
        )


def _may_ask(live: Live, done: int) -> bool:
    """Asking the host waits for all ranks where there are several: only so often."""
    return live.training.world.size == 1 or live.training.plan.logs_after(done)


def _finish(live: Live) -> bool:
    live.context.finish()
    plan, memory = live.training.plan, peak_memory(live.training.device) / 2**30
    live.console.say(
        f"done: {plan.steps} steps, {plan.steps * plan.batch} images, at most {memory:.1f} GiB of memory"
    )
    return True
