"""A training run, from an empty directory to an evaluated backbone: `fit` is the story."""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from signal import SIGTERM

import torch
from torch import Tensor

from pipelines.batch import Batch
from pipelines.loader import Loader
from raymask import checkpoint, metrics, run, state
from raymask.config import Config, build, change, read, to_tree, to_yaml
from raymask.console import Console, Stopwatch
from raymask.context import LocalContext, RunContext
from raymask.device import describe, moved, peak_memory, pick_device, pins_memory, prepare
from raymask.evaluate import evaluate
from raymask.metrics import Running
from raymask.signals import Stopped, StopRequest
from raymask.step import train_step
from raymask.streams import Rng
from raymask.training import Training, assemble
from raymask.world import World, any_across, barrier, from_environment, joined

Values = Mapping[str, Tensor | float]


class Diverged(RuntimeError):
    """The loss is not finite any more."""


def train(config: Config) -> Path:
    """A new run in this process (or these, under torchrun); returns its directory.

    Raises ValueError, before anything is written, if the config and the data do not fit.
    """
    with _hosted(config) as (world, device, stop):
        training = assemble(config, world=world, device=device)
        folder = _create(training)
        _fit_here(training, folder, stop)
    return folder


def resume(folder: Path, changes: list[str] | tuple[str, ...] = ()) -> Path:
    """Continues a run from its last checkpoint; `changes` may concern its pace and its reports only."""
    folder = folder.resolve()
    if not (folder / "config.yaml").exists():
        raise ValueError(f"{folder} is no run directory: it holds no config.yaml")
    saved = read(folder / "config.yaml")
    config = change(saved, changes)
    state.refuse_another_config(to_tree(saved), to_tree(config), where=folder)
    with _hosted(config) as (world, device, stop):
        training = assemble(config, world=world, device=device)
        if world.leads:
            checkpoint.clean(folder / "checkpoints")
        barrier()
        _fit_here(training, folder, stop)
    return folder


def fit(training: Training, folder: Path, context: RunContext) -> bool:
    """Trains from the host's latest checkpoint, whoever that is; whether it came to the end of the run."""
    plan, config = training.plan, training.config
    with _opened(training, folder, context) as live:
        for batch in moved(live.loader, training.device):
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
            if _may_poll(live, done) and context.preempted():
                return _stop(live, done)
        return _finish(live)


def _fit_here(training: Training, folder: Path, stop: StopRequest) -> None:
    """Trains with this process as the host. Raises Stopped if it was asked to end before the end."""
    world, device, keep = training.world, training.device, training.config.train.keep
    if not fit(training, folder, LocalContext(folder, world=world, device=device, keep=keep, stop=stop)):
        number = stop.received or SIGTERM  # another rank may have been the one that was asked
        raise Stopped(f"stopped; continue with 'raymask resume {folder}'", exit_code=128 + number)


@dataclass(frozen=True)
class _Live:
    """A run that is under way."""

    training: Training
    folder: Path
    context: RunContext
    console: Console
    loader: Loader
    running: Running
    watch: Stopwatch
    start: int

    @property
    def lines(self) -> Path:
        return self.folder / "metrics.jsonl"


@contextmanager
def _hosted(config: Config) -> Iterator[tuple[World, torch.device, StopRequest]]:
    """This process as a rank of its world, with its device ready, listening for requests to stop."""
    world = from_environment()
    device = pick_device(world.local_rank)
    prepare(device, threads=1 if config.debug else None, detect_anomaly=config.debug)
    with joined(world, device=device), StopRequest() as stop:
        yield world, device, stop


def _create(training: Training) -> Path:
    """The run directory with what describes the run; all ranks learn whether the first one could make it."""
    config, world = training.config, training.world
    problem: ValueError | None = None
    if world.leads:
        try:
            folder = run.create(config.run)
            (folder / "config.yaml").write_text(to_yaml(config))
            run.write_json(folder / "env.json", run.environment(describe(training.device), world=world.size))
        except ValueError as error:
            problem = error
    if any_across(problem is not None, device=training.device):
        raise problem or ValueError("the first rank could not make the run directory")
    return config.run.folder()


@contextmanager
def _opened(training: Training, folder: Path, context: RunContext) -> Iterator[_Live]:
    """The live parts of the run, from where its host left off; closed whatever happens."""
    running = Running(training.device)
    start, said = _restore(training, folder, context, running)
    plan, config, world = training.plan, training.config, training.world
    loader = Loader(
        config.data,
        training.source,
        batch=plan.batch,
        seed=config.run.seed,
        rank=world.rank,
        world=world.size,
        start=start,
        steps=plan.steps,
        pin=pins_memory(training.device),
        bad_log=folder / "bad_samples.jsonl" if world.leads else None,
    )
    console = Console(folder / "train.log", steps=plan.steps, start=start, leads=world.leads)
    live = _Live(training, folder, context, console, loader, running, Stopwatch(), start)
    with closing(console), closing(loader):
        for remark in (said, *training.method.remarks()):
            console.say(remark)
        if start == 0 and plan.evaluates_after(0):
            _evaluate(live, 0)
        yield live


def _restore(training: Training, folder: Path, context: RunContext, running: Running) -> tuple[int, str]:
    """Puts the host's latest checkpoint in place; returns its step (0 without one) and a sentence."""
    config, leads = training.config, training.world.leads
    lines = folder / "metrics.jsonl"
    with context.latest() as found:
        if found is None:
            if leads:
                metrics.truncate(lines, -1)
            return 0, f"{folder}: {training.plan.steps} steps on {describe(training.device)}"
        saved = state.describe(found)
        state.refuse_another_config(to_tree(build(saved["config"])), to_tree(config), where=found)
        if saved["data"] != training.source.fingerprint:
            raise ValueError(
                f"{found} was trained on other data than data.train={config.data.train} (fingerprints {saved['data']} "
                f"and {training.source.fingerprint}): a run continues on the data it began with"
            )
        loaded = state.restore(found, method=training.method, optimiser=training.optimiser)
        running.restore(state.tensors(found / "running.safetensors"), leads=leads)
        if leads:
            metrics.truncate(lines, saved["step"])
        return saved[
            "step"
        ], f"{found}: {loaded}; continuing at step {saved['step']} of {training.plan.steps}"


def _count(live: _Live, batch: Batch, values: Values) -> None:
    live.running.add(values, batch)
    live.watch.add(batch.rows)
    live.console.advance(batch.step + 1)


def _log(live: _Live, done: int, values: Values) -> None:
    """Writes a line of metrics.jsonl: means over the steps since the last one."""
    _refuse_nan(live)
    plan, means = live.training.plan, live.running.take()
    images, seconds = live.watch.take()
    wait = live.loader.take_timings()["data_wait"]
    last = plan.progress(done - 1)
    line = {"step": done, "images": done * plan.batch, "epoch": last.epoch, "progress": done / plan.steps}
    line |= {name: value for name, value in means.items() if name not in ("samples", "masks")}
    line |= {name: value for name, value in values.items() if not torch.is_tensor(value)}
    line |= {"images_per_s": images / seconds, "data_wait": wait / seconds}
    line |= {name: means[name] for name in ("samples", "masks")}
    if live.training.world.leads:
        metrics.append(live.lines, line)
    live.console.show(line, done)
    live.context.report({name: v for name, v in line.items() if isinstance(v, float)}, step=done)


def _evaluate(live: _Live, done: int) -> None:
    """Measures the backbone on the held-out split, on the first rank while the others wait."""
    training, plan = live.training, live.training.plan
    with live.watch.paused():
        if training.world.leads:
            backbone = getattr(training.method, training.config.evaluate.network).backbone
            results = evaluate(backbone, training.evaluation, final=done == plan.steps, dtype=training.dtype)
            training.method.train()
            metrics.append(live.lines, {"step": done, "images": done * plan.batch, **results})
            (live.folder / "eval").mkdir(exist_ok=True)
            run.write_json(live.folder / "eval" / f"step_{done:08d}.json", {"step": done, **results})
            live.console.say(f"step {done}: " + "  ".join(f"{k} {v:.4g}" for k, v in results.items()))
        barrier()


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

    def save(into: Path) -> None:
        state.save(
            into, method=training.method, optimiser=training.optimiser, running=running, state=described
        )

    with live.watch.paused():
        live.context.report({}, step=done, save=save)


def _refuse_nan(live: _Live) -> None:
    """Ends a run whose loss is not finite; its last good checkpoint stays."""
    step = live.running.broken_at()
    if step is not None:
        with live.context.latest() as good:
            where = f"the last good checkpoint is {good}" if good else "there is no checkpoint yet"
        raise Diverged(
            f"the loss is not finite any more since step {step}; {where}. A lower optim.base_lr or optim.clip, or "
            "train.precision=float32 may help, in a new run"
        )


def _may_poll(live: _Live, done: int) -> bool:
    """Several ranks have to agree on stopping, which waits for all of them: only so often."""
    return live.training.world.size == 1 or live.training.plan.logs_after(done)


def _stop(live: _Live, done: int) -> bool:
    """Ends in good order: a checkpoint, unless there is one of this step."""
    if not live.training.plan.saves_after(done):
        _save(live, done)
    return done == live.training.plan.steps


def _finish(live: _Live) -> bool:
    plan, memory = live.training.plan, peak_memory(live.training.device) / 2**30
    live.console.say(
        f"done: {plan.steps} steps, {plan.steps * plan.batch} images, at most {memory:.1f} GiB of memory"
    )
    return True
