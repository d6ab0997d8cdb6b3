"""The command line: the one place that wires everything. Heavy imports stand inside the verb that needs them.

What a user can cause ends in one sentence on stderr and exit code 2, a failure on the way in exit code 1;
debug=true shows the traceback of what no sentence of ours explains.
"""

import os
import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from raymask.signals import interrupt_on_sigterm
from raymask.which import run_or_path

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Masked distillation of Vision Transformers: from a folder of images to a backbone.",
)

Changes = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="settings, such as train.epochs=10", show_default=False),
]
RunOrCheckpoint = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        help="a run (directory, or name in runs/), one of its checkpoints",
        show_default=False,
    ),
]
Address = Annotated[
    str | None, typer.Option(metavar="URL", help="of the cluster's dashboard, if not http://127.0.0.1:8265")
]
RunPath = Annotated[
    Path, typer.Argument(metavar="RUN", help="directory, or name in runs/", show_default=False)
]


@app.command()
def train(
    preset: Annotated[
        str, typer.Argument(metavar="PRESET|CONFIG", help="name of a preset or path of a YAML file")
    ],
    changes: Changes = None,
) -> None:
    """Train a backbone: raymask train dino-random-mask-laptop data=photos.

    In this process, or by several workers on a Ray cluster: workers=4.
    """
    from raymask.config import anchored, load

    config = anchored(load(preset, changes or []))
    if config.workers is None:
        from raymask.train import train

        _done(train(config))
    else:
        _say("torch and Ray are loaded, and start the workers: that takes half a minute")
        from raymask.distributed.launch import train_on_ray

        _done(train_on_ray(config))


@app.command()
def resume(run: RunPath, changes: Changes = None) -> None:
    """Continue a run from its last checkpoint, here or on the workers it had (workers=N changes that).

    A search goes on with the trials that it has left.
    """
    from raymask.standing import finished, state_of

    run = run_or_path(run)
    if not changes and state_of(run) == "finished":
        print(finished(run))
        return
    if (run / "search.yaml").exists():
        from raymask.distributed.tune import resume_tune

        _reported(resume_tune(run, changes=changes or []))
        return
    from raymask.train import changed, resume

    if changed(run, changes or []).workers is None:
        _done(resume(run, changes or []))
    else:
        from raymask.distributed.launch import resume_on_ray

        _done(resume_on_ray(run, changes or []))


@app.command()
def tune(
    space: Annotated[
        str,
        typer.Argument(metavar="SPACE", help="a name in tune_spaces/, or a Python file", show_default=False),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="preset=PRESET budget=IMAGES [KEY=VALUE]...",
            help="settings of the search (trials, metric, ...) and of every trial",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Search settings: raymask tune mask_ratio preset=dino-random-mask-laptop budget=400000 data=photos."""
    from raymask.distributed.tune import tune

    _reported(tune(space, words or []))


@app.command()
def pack(
    source: Annotated[
        str, typer.Argument(help="a folder of images, a zip, tars or an IDX file", show_default=False)
    ],
    out: Annotated[Path, typer.Argument(help="a new folder for the shards", show_default=False)],
    changes: Changes = None,
) -> None:
    """Pack images into shards, or shards into others: raymask pack photos shards holdout=0.1 format=ffcv."""
    from pipelines.gain import gain
    from pipelines.pack import Packing, pack
    from raymask.overrides import settings_of

    packing = settings_of(Packing, changes or [])
    packed = pack(source, out, packing)
    print(packed)
    print(gain(source, packed, allow_pipe=packing.allow_pipe))


@app.command()
def inspect(
    source: Annotated[str, typer.Argument(help="whatever pack and train can read", show_default=False)],
    sheet: Annotated[Path | None, typer.Argument(help="PNG to write a contact sheet to")] = None,
) -> None:
    """Say what is in a data set, with a contact sheet if asked for."""
    from pipelines.inspect import inspect_splits
    from pipelines.sheet import contact_sheet

    for split, contents in inspect_splits(source).items():
        print(contents)
        if sheet is not None:
            path = sheet.with_stem(f"{sheet.stem}_{split}") if split else sheet
            contact_sheet(source, path, split=split or None)
            print(f"  sheet        {path}")


@app.command()
def verify(
    source: Annotated[str, typer.Argument(help="shards, a packed folder, images, a zip", show_default=False)],
    changes: Changes = None,
) -> None:
    """Check shards against their checksums and indexes, and decode every image (fast=true: without that)."""
    from pipelines.verify import Verify, verify
    from raymask.overrides import settings_of

    found = verify(source, settings_of(Verify, changes or []))
    print(found)
    if not found.whole:
        raise typer.Exit(1)


@app.command()
def bench(
    changes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="data=PATH [KEY=VALUE]...",
            help="settings of the data, batch, seconds",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Measure how fast data come, and say what limits them and what to change: raymask bench data=shards."""
    from raymask.bench import Bench, bench
    from raymask.overrides import settings_of

    for line in bench(settings_of(Bench, changes or [])):
        print(line, flush=True)


@app.command()
def evaluate(
    run: RunOrCheckpoint,
    changes: Changes = None,
) -> None:
    """Measure a backbone on the held-out split: raymask evaluate runs/a evaluate.linear=true."""
    from raymask.evaluate import evaluate_run

    for name, value in evaluate_run(run_or_path(run), changes or []).items():
        print(f"{name:24s} {value:.4f}")


@app.command()
def export(run: RunOrCheckpoint, changes: Changes = None) -> None:
    """Write a folder that plain timm opens, and compare the two. Settings: out=FOLDER network=student."""
    from typing import Literal

    from pipelines.settings import Settings
    from raymask.export import export
    from raymask.overrides import settings_of

    class Exporting(Settings):
        out: str | None = None
        network: Literal["teacher", "student"] | None = None  # the one that the run evaluates

    chosen = settings_of(Exporting, changes or [])
    print(export(run_or_path(run), out=chosen.out, network=chosen.network))


@app.command()
def report(run: RunPath, changes: Changes = None) -> None:
    """Write report.html of a run (curves, masks, attention, cost) or of a search. Setting: out=FILE."""
    from pipelines.settings import Settings
    from raymask.overrides import settings_of
    from raymask.report import write_report

    class Reporting(Settings):
        out: str | None = None

    print(write_report(run_or_path(run), out=settings_of(Reporting, changes or []).out))


@app.command()
def demo(
    data: Annotated[str, typer.Argument(help="images of your own; without, 10,000 of Fashion-MNIST")] = "",
    out: Annotated[str, typer.Argument(help="folder for shards and runs")] = "demo",
    changes: Changes = None,
) -> None:
    """The main job on real images in a few minutes: pack, train, evaluate, export, report."""
    from raymask.demo import Demo, demo

    demo(Demo(data=data or None, out=out), tuple(changes or ()))


@app.command()
def doctor(
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="a data set to look at as well")
    ] = None,
    address: Address = None,
) -> None:
    """Say whether this machine, this data and the cluster at --address are set up right."""
    from raymask.doctor import examine

    right = True
    for finding in examine(data, cluster=address):
        print(f"{'ok   ' if finding.ok else 'WRONG'}  {finding.what:14s} {finding.said}", flush=True)
        right = right and finding.ok
    if not right:
        raise typer.Exit(1)


@app.command()
def presets(
    name: Annotated[
        str | None, typer.Argument(metavar="[PRESET]", help="show the settings of this one")
    ] = None,
) -> None:
    """List the presets, or print one as YAML."""
    from raymask import presets

    if name is not None:
        from raymask.config import load, to_yaml

        print(to_yaml(load(name)), end="")
        return
    for known in presets.names():
        said = presets.about(known)
        print(
            "\n    ".join(
                [known, said["paper"], f"masks: {said['masks']}", f"differs: {said['differs'].strip()}"]
            )
        )
    print(f"\nEach also as NAME{presets.LAPTOP}: the same shape, small enough for a laptop.")


@app.command()
def submit(
    verb: Annotated[str, typer.Argument(metavar="train|tune", help="what the job does", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="[ARGUMENT]...", help="as after train or tune", show_default=False),
    ] = None,
    address: Address = None,
    detach: Annotated[bool, typer.Option("--detach", help="leave the job to itself")] = False,
) -> None:
    """Run train or tune as a job of a Ray cluster, and follow it."""
    from raymask.distributed.jobs import submit

    where, client, job = submit(verb, arguments or [], address=address, say=_say, here=Path.cwd())
    later = f"'raymask status {job.run}' and 'raymask stop {job.run}'"
    if detach:
        _say(f"the job goes on by itself: see {later}")
        return
    from raymask.distributed.job_logs import exit_code, follow
    from raymask.distributed.job_status import about
    from raymask.signals import Stopped

    try:
        ended = follow(client, job, where=where, show=lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        raise Stopped(f"no longer following {job.id}, which goes on: see {later}", exit_code=130) from None
    _say(about(ended))
    raise typer.Exit(exit_code(ended))


@app.command()
def status(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="directory, name in runs/, or name of a job", show_default=False),
    ],
    address: Address = None,
) -> None:
    """Say whether a run or search runs, has stopped or is finished, how far it is, and what comes next."""
    from raymask.distributed.job_status import status

    for line in status(run, address=address):
        print(line)


@app.command()
def stop(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN", help="directory, name in runs/, or name of a job", show_default=False),
    ],
    address: Address = None,
) -> None:
    """End a run, search or job after a checkpoint, and wait for that: raymask stop runs/a."""
    from raymask.distributed.job_status import about
    from raymask.distributed.jobs import stop

    ended = stop(run, address=address, say=_say)
    if ended is not None:
        _say(about(ended))
        _say("submit the same command again to go on from there")


def _say(text: str) -> None:
    """A remark beside what a verb prints."""
    print(f"raymask: {text}", file=sys.stderr, flush=True)


def _reported(search: Path) -> None:
    """Writes the report of a search that has ended."""
    from raymask.report import write_report

    print(f"report: {write_report(search)}")


def _done(run: Path) -> None:
    """Writes the report of a run that has ended, and says where things are."""
    from raymask.report import write_report

    if os.environ.get("RANK", "0") == "0":
        print(f"report: {write_report(run)}\nrun: {run}")


def main() -> None:
    """The `raymask` command."""
    # Pillow's remarks on a file name no file; what cannot be used is counted and named by its reader.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    interrupt_on_sigterm()
    try:
        app()
    except Exception as error:
        from raymask.failures import exit_code, explains_itself, leave, sentence, was_asked_to_stop

        code, stopped = exit_code(error), was_asked_to_stop(error)
        if code is None or ("debug=true" in sys.argv and not explains_itself(error)):
            raise
        rank = os.environ.get("RANK", "0")  # under torchrun: what only one process met must not be lost
        if rank == "0" or not stopped:
            print(f"rank {rank}: {sentence(error)}" if rank != "0" else sentence(error), file=sys.stderr)
        leave(code)
